"""Protocols: every choice between an image file and a number."""
