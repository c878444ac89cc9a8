"""Classifiers of clips, and methods that reduce the tokens of segments of frames."""
