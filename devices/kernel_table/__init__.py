"""The kernel table of a machine: what its kernels, memory and disk do, measured operator by operator."""
