"""Quantizers, a file each: latents in, what the decoder gets and its indices out."""
