"""Datasets: sources of image files, decoding, preprocessing, annotations, labels and batches."""
