"""What the anatomy of a block is put together of: linears, norms, attention, other mixers, MLPs, experts."""
