"""Whether two states of the code write the same bytes, from every pass, export, option and verb.

Pico models of every family and the two demo models are compressed and exported, and every file is hashed.
Only what a user has is called: the public functions, recipes, and ``python -m edgepress``. Nothing is left
out of a hash, since neither the clock nor the place is in what is written: two runs of one state, with two
folders for their outputs, agree in every byte.
"""
