"""Pruning of single weights: scores, masks and what compensates for them; ``structured/`` cuts units."""
