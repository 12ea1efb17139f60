"""Floor: bundles run here with numpy and onnxruntime, no torch.

Rooms from the bottom: ``bundle``, ``text`` and ``kernels``, ``session``, ``images`` and ``audio``,
``engine``; ``api.open_bundle`` is the front.
"""
