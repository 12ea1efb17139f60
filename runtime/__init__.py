"""Floor: bundles run here with numpy and onnxruntime, no torch."""
