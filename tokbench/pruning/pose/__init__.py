"""Pruning of frames in networks that lift 2-D joints to 3-D joints."""
