"""Structured pruning: whole channels, heads and layers go, and the shapes shrink with them."""
