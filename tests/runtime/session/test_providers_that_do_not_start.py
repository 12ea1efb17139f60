"""A build of ONNX Runtime with CUDA on a machine without its libraries, its driver or its memory: what the
library does there, recorded from onnxruntime-gpu 1.31, and what is made of it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from edgepress.errors import BundleError, MissingDependency, OutOfResource
from edgepress.runtime.session.session import open_session

Session = onnxruntime.InferenceSession

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
MISSING = "Failed to load libcublasLt.so.13: cannot open shared object file"


class WithoutLibraries(Session):  # type: ignore[misc]
    """Makes a session for the CPU, as the library does where that of the provider cannot be loaded."""

    def __init__(self, graph: str, *, providers: list[str], **options: Any) -> None:
        super().__init__(graph, providers=[CPU], **options)


def raising(words: str) -> Callable[..., Any]:
    """A session whose provider raises: what the library prints, and then takes another, by itself."""

    def made(graph: str, *, providers: list[str], enable_fallback: int = 1, **options: Any) -> Any:
        if enable_fallback:
            print("*************** EP Error ***************", words)
            return Session(graph, providers=[CPU], **options)
        raise RuntimeError(words)

    return made


@pytest.fixture(autouse=True)
def built_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print(MISSING, "\nPlease install CUDA."))


def test_libraries_that_are_missing_are_named(
    decoder_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", WithoutLibraries)
    with pytest.raises(MissingDependency, match="could not start it") as caught:
        open_session(decoder_bundle / "model.onnx", provider="cuda")
    assert MISSING in caught.value.why and CPU in caught.value.why
    assert "onnxruntime-gpu[cuda,cudnn]" in caught.value.fix
    assert capsys.readouterr().out == "", "what is printed belongs to whoever asked for --json"


def test_libraries_are_loaded_for_a_gpu_alone(decoder_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = list[str]()
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: loaded.append("CUDA"))
    open_session(decoder_bundle / "model.onnx", threads=1)
    assert not loaded
    monkeypatch.setattr(onnxruntime, "InferenceSession", WithoutLibraries)
    with pytest.raises(MissingDependency):
        open_session(decoder_bundle / "model.onnx", provider="cuda")
    assert loaded == ["CUDA"]


def test_cuda_adds_up_the_squares_of_a_norm_in_float32(
    decoder_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float16 the mean of 4,096 squares of states around 0.01 is a sixth too small."""
    asked = list[Any]()

    def made(graph: str, *, providers: list[Any], **options: Any) -> Any:
        asked.extend(providers)
        return Session(graph, providers=[CPU], **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", made)
    open_session(decoder_bundle / "model.onnx", threads=1)
    with pytest.raises(MissingDependency):
        open_session(decoder_bundle / "model.onnx", provider="cuda")
    assert asked == [CPU, (CUDA, {"enable_skip_layer_norm_strict_mode": "1"})]


def test_a_device_that_is_missing_is_no_damaged_bundle(
    decoder_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "CUDA failure 100: no CUDA-capable device is detected"
    monkeypatch.setattr(onnxruntime, "InferenceSession", raising(words))
    with pytest.raises(MissingDependency, match="could not start it") as caught:
        open_session(decoder_bundle / "model.onnx", provider="cuda")
    assert caught.value.why == words and capsys.readouterr().out == ""


def test_a_shortage_of_the_gpus_memory_is_one(decoder_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", raising("CUDA failure 2: out of memory"))
    with pytest.raises(OutOfResource, match="out of memory"):
        open_session(decoder_bundle / "model.onnx", provider="cuda")


def test_on_the_cpu_it_is_the_bundle(decoder_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", raising("a graph that it cannot read"))
    with pytest.raises(BundleError, match="cannot load"):
        open_session(decoder_bundle / "model.onnx", threads=1)
