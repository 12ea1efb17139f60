"""Linears and embeddings as nodes: which operator holds a scheme, and the arrays it reads."""
