"""Lossless coders of indices."""
