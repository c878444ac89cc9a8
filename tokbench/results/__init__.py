"""Results: their files, and the tables that are derived from them."""
