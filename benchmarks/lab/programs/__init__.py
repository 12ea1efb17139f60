"""Programs that make the pages of ``results/``; each says with which command."""
