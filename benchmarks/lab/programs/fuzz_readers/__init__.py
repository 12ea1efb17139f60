"""Readers of files that others write, for mutants: each makes whole files and says how one is read."""
