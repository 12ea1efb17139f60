"""Floor: graphs are built, proven and published."""
