"""Plug-ins: one export format a file; the file name is ``--format``.

A file defines ``FORMAT``, an ``ExportFormat``; those that begin with ``_`` serve the others. Only ``api``
loads them, by name.
"""
