"""Results: one JSON file for each, and the tables that are made of them."""
