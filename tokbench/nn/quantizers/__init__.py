"""Quantizers, one per module: they map latents to indices and to the inputs of the decoder."""
