"""Tools that quantize after training, a file each; the file name is the tool's name.

Each file says which packages its environment needs, which schemes it is asked for, and how it quantizes a
checkpoint. What it wrote is turned into float32 weights on the same grid, so that one evaluation judges all.
As the engines' files, these run where edgepress is not installed.
"""
