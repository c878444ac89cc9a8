"""Statistics of numbers over images: intervals, moments, means by size. Nothing here imports torch."""
