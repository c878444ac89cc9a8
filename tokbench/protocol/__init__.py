"""Evaluation protocols: all settings that determine a metric value for a given image file."""
