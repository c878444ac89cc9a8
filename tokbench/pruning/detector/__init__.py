"""Reduction of the tokens that the encoder of a detector updates."""
