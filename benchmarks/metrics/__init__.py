"""Plug-ins: one metric a file."""
