"""The parts of the parity proof."""
