"""How far a compressed model is from its original on a text.

Import ``validate.validate_bundle``; ``metrics/`` are plug-ins, one metric a file.
"""
