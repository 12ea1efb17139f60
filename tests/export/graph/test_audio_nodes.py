"""The spectra of a sound as nodes: those of transformers' extractor."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from edgepress.compress.text.calibration_audio import made_sounds
from edgepress.compress.text.log_mel import LogMel
from edgepress.compress.text.spectra import filters, spectra
from edgepress.errors import CheckpointError
from edgepress.export.api import export_bundle
from edgepress.export.graph.audio_nodes import log_mel
from edgepress.export.graph.graph_writer import GraphWriter, Opset
from edgepress.runtime.session.session import open_session

pytestmark = pytest.mark.chain

SHORT, LONG = LogMel(16_000, 32_000, 400, 160, 80), LogMel(16_000, 480_000, 400, 160, 128)
OTHER = LogMel(16_000, 16_000, 512, 100, 40)
FLOAT = ir.DataType.FLOAT


def session(how: LogMel, folder: Path) -> Any:
    graph = GraphWriter("sound")
    found = log_mel(graph, graph.input("audio", FLOAT, ["batch_size", how.samples]), how)
    graph.output(found, "features", FLOAT, ["batch_size", how.bins, how.frames])
    ir.save(graph.model(Opset(23, 11)), folder / "sound.onnx")
    return open_session(folder / "sound.onnx")


def sounds(how: LogMel) -> dict[str, np.ndarray]:
    time, generator = np.arange(how.samples) / how.rate, np.random.default_rng(1)
    noise = generator.normal(0, 0.1, how.samples)
    found = {
        "noise": noise,
        "noise and silence": np.where(time < 1, noise, 0),
        "a tone": 0.9 * np.sin(2 * np.pi * 440 * time),
        "silence": np.zeros(how.samples),
        "a click": np.where(time == 0.25, 1.0, 0.0),
        "nothing but an offset": np.full(how.samples, 0.9),
        "voices": np.resize(made_sounds(how, 1)[0], how.samples),
    }
    return {name: np.asarray(np.round(sound * 32_767) / 32_768, np.float32) for name, sound in found.items()}


@pytest.mark.parametrize("how", [SHORT, LONG, OTHER], ids=["short", "long", "other"])
def test_spectra_are_those_of_transformers(how: LogMel, tmp_path: Path) -> None:
    named = sounds(how)
    rows = np.stack([*named.values()])
    (found,) = session(how, tmp_path).run(None, {"audio": rows})
    want = spectra(rows, how).numpy()
    assert found.shape == want.shape == (len(rows), how.bins, how.frames)
    worst = dict(zip(named, np.abs(found - want).max((1, 2)), strict=True))
    assert max(worst.values()) < 1e-4, worst


def test_they_are_made_of_standard_operators(tmp_path: Path) -> None:
    session(SHORT, tmp_path)
    nodes = list(ir.load(tmp_path / "sound.onnx").graph)
    assert {node.domain for node in nodes} == {""}
    # None of those that clients in a browser lack, as a Fourier transform.
    plain = "Unsqueeze Pad Conv Mul Split Add MatMul Max Log ReduceMax Sub Div"
    assert {node.op_type for node in nodes} == set(plain.split())


def test_beside_a_loud_voice_both_are_as_far_from_what_is_right(tmp_path: Path) -> None:
    """Where harmonics are a hundred million times stronger than what lies between them, float32 has no more
    digits to say what does: not in transformers either.
    """
    time = np.arange(SHORT.samples) / SHORT.rate
    voice = sum(np.sin(2 * np.pi * 120 * k * time + k) / k for k in range(1, 30)) * 0.1
    sound = np.asarray(np.round(voice * 32_767) / 32_768, np.float32)[None]
    (found,) = session(SHORT, tmp_path).run(None, {"audio": sound})
    padded = np.pad(sound[0].astype(np.float64), 200, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, 400)[::160][: SHORT.frames]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    powers = np.abs(np.fft.rfft(frames * hann)) ** 2
    log = np.log10(np.maximum(filters(SHORT).astype(np.float64) @ powers.T, 1e-10))
    right = (np.maximum(log, log.max() - 8) + 4) / 4
    ours, theirs = (np.abs(values[0] - right).max() for values in (found, spectra(sound, SHORT).numpy()))
    assert ours < max(5e-5, 4 * theirs)
    assert ours < 1e-3


def test_without_the_extractor_s_settings_nothing_is_exported(pico_whisper: Path, tmp_path: Path) -> None:
    path = tmp_path / "m"
    shutil.copytree(pico_whisper, path, ignore=shutil.ignore_patterns("preprocessor_config.json"))
    with pytest.raises(CheckpointError, match="spectra"):
        export_bundle(path, output=tmp_path / "o")
    assert not (tmp_path / "o").exists()
