"""Losses of a student against its teacher: on logits, states, attention maps, labels and sequences."""
