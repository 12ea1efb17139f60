"""Floor: what machines have, known or probed; no torch."""
