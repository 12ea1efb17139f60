"""What one NVIDIA GPU must do: the chain, its memory and its speed, in one command of minutes."""
