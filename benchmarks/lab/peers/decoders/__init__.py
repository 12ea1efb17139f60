"""Engines that run decoders, a file each; the file name is the engine's name.

Each file says in which variants the engine runs a model, how a checkpoint becomes such a variant and how that
is loaded. It is read by edgepress, and runs in the engine's environment: it imports the standard library, the
contract, and packages in functions.
"""
