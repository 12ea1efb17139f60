"""Builders of ONNX graphs from an anatomy and its weights.

Import ``whole_graph``, ``build`` for its weights and ``graph_writer`` for its operator set; ``linear/``,
``attention/`` and ``forms/`` are its parts.
"""
