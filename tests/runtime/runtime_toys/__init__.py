"""Toy bundles with the exporter's input and output contract, and the same models in plain numpy."""
