"""Waveforms (C, N). Samples in [-1, 1] are stored as values in [0, 1]; silence is 0.5."""
