"""The Python API: what `import tokbench` offers. Its names are listed in `tokbench/__init__.py`."""
