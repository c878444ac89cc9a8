"""Images that code draws from a seed, with exact descriptions. This package does not import torch."""
