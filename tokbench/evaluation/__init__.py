"""Evaluation: one pass over the images, every adapter, every metric."""
