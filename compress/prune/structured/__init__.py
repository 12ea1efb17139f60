"""Structured pruning: whole channels, heads, experts and layers go, and the shapes shrink with them."""
