"""What is asked for, and given to choose and judge by, text or files in parts; and what is calibrated on."""
