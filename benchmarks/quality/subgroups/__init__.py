"""How much each group of a slice loses, with intervals, tests and their power, and which loses most."""
