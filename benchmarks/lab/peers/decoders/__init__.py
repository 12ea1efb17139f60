"""Engines that run decoders, a file each; the file name is the engine's name.

Each file says which packages its environment needs, in which variants it runs a model, how a checkpoint
becomes such a variant, how that is loaded, and, as ``warm``, what the engine keeps on a machine after a first
run. It is read by edgepress, and runs in the engine's environment, where edgepress is not installed: apart
from its siblings it imports the standard library, and the engine's packages where work begins.
"""
