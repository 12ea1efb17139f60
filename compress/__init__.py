"""Floor: models are read, compressed block by block, and written."""
