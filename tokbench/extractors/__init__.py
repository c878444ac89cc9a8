"""Frozen networks that metrics read: image features, perceptual distances, text recognition and face recognition."""
