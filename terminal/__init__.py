"""Ground: what a user sees while work goes on: progress, tables, one JSON document on stdout."""
