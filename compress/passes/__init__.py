"""Plug-ins: one compression algorithm a file; the file name is ``pass:`` in a recipe."""
