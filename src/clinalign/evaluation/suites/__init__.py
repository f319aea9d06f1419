"""One scorer a benchmark: outcomes into its numbers."""
