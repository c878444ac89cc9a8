"""Adapters that need no training."""
