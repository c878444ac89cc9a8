"""Token reduction inside a vision transformer: one file for each method, applied by a `with` block."""
