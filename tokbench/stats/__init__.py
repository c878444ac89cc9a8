"""Statistics over images: confidence intervals, running moments and binned means. No module here imports torch."""
