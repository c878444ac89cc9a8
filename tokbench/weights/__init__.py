"""Weight files: their locations, reading, checking and writing."""
