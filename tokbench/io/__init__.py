"""Files: never half written, read strictly and within bounds, hashed."""
