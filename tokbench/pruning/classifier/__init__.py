"""Reduction of tokens in vision transformers that classify images."""
