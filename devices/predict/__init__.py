"""Predictions: what a graph or a plan will take on a machine, from a kernel table or a data sheet."""
