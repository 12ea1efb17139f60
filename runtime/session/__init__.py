"""ONNX Runtime sessions: options, threads, what the container grants, what the processor can do.

Import ``session.open_session``.
"""
