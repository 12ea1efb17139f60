"""The errors of an execution provider that this ONNX Runtime lacks, or has and cannot start."""

from ...errors import MissingDependency

CUDA_LIBRARIES = 'pip install "onnxruntime-gpu[cuda,cudnn]"'


def not_installed(provider: str, why: str) -> MissingDependency:
    """Of a build without it."""
    return MissingDependency(
        f"the provider {provider!r} is not available in this ONNX Runtime",
        why=why,
        fix='for cuda and tensorrt: pip uninstall onnxruntime && pip install "edgepress[gpu]"; '
        "for openvino: pip uninstall onnxruntime && pip install onnxruntime-openvino",
    )


def not_started(provider: str, why: str) -> MissingDependency:
    """Of a machine without its libraries, its driver or its device."""
    return MissingDependency(
        f"this ONNX Runtime has the provider {provider!r}, and could not start it",
        why=why,
        fix="install the libraries that it was built with: for cuda, where nvidia-smi shows the GPU, "
        f"{CUDA_LIBRARIES}; name the folder of TensorRT's in LD_LIBRARY_PATH",
    )
