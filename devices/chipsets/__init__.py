"""Chipsets that several targets share, a file each."""
