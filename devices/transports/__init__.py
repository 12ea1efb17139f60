"""How edgepress reaches another machine: OpenSSH, what is sent there by hash, and a kit that is carried."""
