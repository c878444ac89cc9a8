"""File input and output: atomic writes, strict JSON, size limits for archives and arrays, and hashes."""
