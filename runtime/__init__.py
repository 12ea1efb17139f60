"""Floor: bundles run here with numpy and onnxruntime, no torch.

Rooms from the bottom: ``bundle``, ``text`` and ``session``, ``prepack``, ``engine``; ``api.open_bundle`` is
the front.
"""
