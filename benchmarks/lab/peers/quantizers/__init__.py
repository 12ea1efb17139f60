"""Tools that quantize after training, a file each; the file name is the tool's name.

Each file says for which schemes the tool is asked, and how it quantizes a checkpoint. What it wrote is turned
into float32 weights on the same grid, so that one evaluation judges all.
"""
