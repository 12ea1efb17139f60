"""Plug-ins: one target a YAML file; the file name is ``--device``."""
