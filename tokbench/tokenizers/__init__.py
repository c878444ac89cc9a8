"""Tokenizers: their interface, their tokens, and how adapters are found and loaded."""
