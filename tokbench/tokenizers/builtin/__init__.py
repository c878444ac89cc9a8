"""Builtin adapters, which need no training."""
