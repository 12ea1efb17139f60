"""``python -m edgepress``."""

from .cli.entry import main

main()
