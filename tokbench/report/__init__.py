"""The report: committed results as one static site, and README's pictures of them. Nothing here measures."""
