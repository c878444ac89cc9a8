"""Training of adapters that define a training."""
