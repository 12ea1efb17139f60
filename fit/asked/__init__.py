"""What is asked for: its text in parts, and what of that is calibrated on."""
