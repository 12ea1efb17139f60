"""Passes that learn: a student model, what it is compared with, and one loop for all of them."""
