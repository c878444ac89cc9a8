"""Parts that several trained adapters share: quantizers, networks, losses."""
