"""Attention of a decoder as nodes: the key/value cache, rope, positions and the kernel that is chosen."""
