"""What the anatomy of a block is put together of: linears and norms, attention, MLPs and experts."""
