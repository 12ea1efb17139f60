"""Plug-ins: one export format a file; the file name is ``--format``."""
