"""Priors over tokens: small trainable generators, with the same architecture for every tokenizer."""
