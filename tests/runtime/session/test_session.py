"""Sessions: explicit threads, no silent change of provider, typed errors."""

import sys
from pathlib import Path

import pytest
from edgepress.errors import BundleError, InputError, MissingDependency, OutOfResource, UnknownName
from edgepress.runtime.session.session import graph_errors_are_typed, onnxruntime, open_session
from edgepress.runtime.session.threads import thread_budget


def test_threads_are_explicit(decoder_bundle: Path) -> None:
    for asked, expected in ((3, 3), (None, thread_budget())):
        options = open_session(decoder_bundle / "model.onnx", threads=asked).get_session_options()
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (expected, 1)
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "1"


@pytest.mark.parametrize("threads", [0, -3, 100_000])
def test_absurd_threads_are_an_input_error(threads: int, decoder_bundle: Path) -> None:
    with pytest.raises(InputError, match="at least 1 and at most 1024"):
        open_session(decoder_bundle / "model.onnx", threads=threads)


@pytest.mark.parametrize(
    "words", ["std::bad_alloc", "Failed to allocate memory for requested buffer of size 9"]
)
def test_a_shortage_of_memory_is_no_damaged_bundle(words: str) -> None:
    with pytest.raises(OutOfResource), graph_errors_are_typed("ONNX Runtime cannot load model.onnx"):
        raise RuntimeError(words)
    with pytest.raises(OutOfResource), graph_errors_are_typed("ONNX Runtime cannot load model.onnx"):
        raise MemoryError(words)


def test_an_unknown_provider_suggests_the_nearest(decoder_bundle: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'cuda'"):
        open_session(decoder_bundle / "model.onnx", provider="cudo")


def test_a_missing_provider_is_not_replaced(decoder_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(MissingDependency, match=r"edgepress\[gpu\]"):
        open_session(decoder_bundle / "model.onnx", provider="cuda")


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x08\x0a\x3a\x02\x0a\x00"])
def test_a_graph_that_does_not_load(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(data)
    with pytest.raises(BundleError, match="cannot load"):
        open_session(tmp_path / "model.onnx", threads=1)


def test_without_onnxruntime_the_extra_is_named(
    decoder_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependency, match=r"edgepress\[cpu\]"):
        open_session(decoder_bundle / "model.onnx")


def test_a_profile_is_written_where_asked(decoder_bundle: Path, tmp_path: Path) -> None:
    session = open_session(decoder_bundle / "model.onnx", threads=1, profile=tmp_path / "trace")
    assert Path(session.end_profiling()).parent == tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say how much is taken")
def test_it_is_not_loaded_where_it_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr("edgepress.runtime.session.session.address_space_limit", lambda: 1 << 20)
    with pytest.raises(OutOfResource, match="ONNX Runtime takes 75 MB to load, and 0 MB are left"):
        onnxruntime()
