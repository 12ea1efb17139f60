"""Methods sampled by Optuna, by any number of processes: what they gain does not add up over the parts of a
model.
"""
