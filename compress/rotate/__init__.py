"""Orthogonal rotations: made, learned, and fused into the weights of a model."""
