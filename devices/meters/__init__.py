"""Plug-ins: one energy counter a file, with the device that it counts and how it is found."""
