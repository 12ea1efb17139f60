"""Measured claims: each module makes one table of ``benchmarks/results/`` and says with which command."""
