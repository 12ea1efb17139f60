"""The proof that a graph computes what its checkpoint computes: references, distances, bounds.

Import ``parity``.
"""
