"""Checkpoints on disk: validated headers, contained reads, compressed-tensors packing."""
