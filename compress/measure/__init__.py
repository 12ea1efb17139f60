"""What the loss of the whole model says of its parts: Fisher information, sensitivities, states.

One backward pass each; used by passes, the sweep and training alike.
"""
