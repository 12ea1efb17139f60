"""Engines that serve checkpoints, a file each; the file name is the engine's name.

What a file holds is said in :class:`~edgepress.benchmarks.serving.contract.ServingEngine`.
"""
