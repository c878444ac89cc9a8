"""Training of the adapters that are trained here."""
