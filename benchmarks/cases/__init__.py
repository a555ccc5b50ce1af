"""One file a case; see `benchmarks.program` for what it holds."""
