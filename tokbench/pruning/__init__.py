"""Token reduction inside vision transformers. Each method is one file and is applied with a `with` block."""
