"""Answering: decoders, encoders and classifiers over bound buffers, sampling, batches.

Import from ``api`` instead, unless a graph is driven by hand.
"""
