"""Models that learn: linears behind codes, scales and low-rank factors, and students cut from a teacher."""
