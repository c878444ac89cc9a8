"""Trainable parts that several adapters share: quantizers, networks, priors and losses."""
