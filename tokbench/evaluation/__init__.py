"""Evaluation of adapters: one pass over the images for all adapters and all metrics."""
