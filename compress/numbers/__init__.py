"""Number formats of weights and activations: schemes, grids, codes, and simulated rounding.

Import ``scheme.Scheme``, ``qtensor.QTensor`` and ``grid``; no model is known here.
"""
