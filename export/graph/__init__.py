"""Builders of ONNX graphs from an anatomy and its weights."""
