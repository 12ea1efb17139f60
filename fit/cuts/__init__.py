"""Heads, channels and blocks among the candidates of the exact solve."""
