"""Floor: accuracy, latency and memory are measured, compared and reported."""
