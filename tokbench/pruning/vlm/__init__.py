"""Token reduction in vision-language models: visual tokens are dropped before or inside the language model."""
