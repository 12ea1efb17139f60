"""The command line, the top floor: verbs, what they share, exit codes.

Nothing imports it but ``python -m edgepress`` and the console script.
"""
