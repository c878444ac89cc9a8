"""Frozen networks that metrics read: features, perceptual distances, words, faces."""
