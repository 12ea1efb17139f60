"""Builders of ONNX graphs from an anatomy and its weights.

Import ``whole_graph``; ``linear/``, ``attention/`` and ``forms/`` are its parts.
"""
