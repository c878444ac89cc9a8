"""The Python API: what `import tokbench` offers. Its names are listed in `tokbench.py`."""
