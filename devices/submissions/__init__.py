"""Kernel tables that others have sent, a file each: see CONTRIBUTING.md."""
