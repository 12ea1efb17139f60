"""Calibration text: corpora, labels, token windows, batches and micro-batches.

Import ``calibration.Calibration`` and ``micro_batches``.
"""
