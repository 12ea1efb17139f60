"""The CLI verbs of this floor, one a file; each file defines ``command``."""
