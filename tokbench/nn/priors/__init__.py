"""Priors over tokens: the generators that are trained here, small and the same for every tokenizer."""
