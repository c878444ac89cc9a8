"""The Python API. `tokbench/__init__.py` lists the public names."""
