"""``python -m edgepress``."""

from .cli import main

main()
