"""Plug-ins: one model family a file; the file name is ``model_type`` in config.json."""
