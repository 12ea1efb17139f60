"""Tools that embed sentences, a file each; the file name is the tool's name.

Each file says in which variants the tool runs an encoder, how a checkpoint becomes such a variant, and how
that is loaded: as a function from sentences to vectors.
"""
