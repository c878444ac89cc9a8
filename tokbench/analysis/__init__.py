"""Analyses of results: comparison, regression check, protocol audit, ablations, correlations."""
