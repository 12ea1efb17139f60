"""Weights prepacked for this machine: a cache below the user's own, made in the background.

Import ``prepacked`` to find an entry and ``prepack`` to make one.
"""
