"""What results say beside one another: comparisons, checks, audits, correlations."""
