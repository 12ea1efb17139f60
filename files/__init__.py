"""Ground: files on disk, read within bounds and written whole or not at all; knows nothing of models."""
