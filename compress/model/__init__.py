"""What a model is: its anatomy, its weights by module name, and transformers' module for it.

Import ``anatomy``, ``weights.WeightSource``, ``skeleton`` and ``torch_model``.
"""
