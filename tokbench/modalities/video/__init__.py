"""Clips: frames (T, 3, H, W), which tokenizers of images encode frame by frame."""
