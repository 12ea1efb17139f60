"""What llama.cpp knows of each family, for files that are read and files that are written: the names and the
order of its tensors, and the arithmetic that they get.
"""
