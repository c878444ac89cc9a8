"""Where images come from: folders, archives, arrays, Parquet files, manifests."""
