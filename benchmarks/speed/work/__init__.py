"""What is timed: units of work by kind of model, and a loaded model that does them."""
