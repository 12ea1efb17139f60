"""Measures checkpoints under load, through the API of an engine's own server.

An engine is a file of :mod:`.engines`; it runs as a child process, in an environment of its own.
"""
