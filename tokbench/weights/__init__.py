"""Weight files: where they are looked for, how they are read, how they are stored."""
