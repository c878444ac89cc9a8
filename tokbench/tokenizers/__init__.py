"""The interface of tokenizers, their tokens, and the search for and loading of adapters."""
