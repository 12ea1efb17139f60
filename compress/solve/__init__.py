"""Solvers behind the passes, without a sweep of their own: recursions, least squares, knapsack, searches."""
