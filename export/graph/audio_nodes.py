"""From the numbers of a sound to what the first block of an encoder reads: logarithms of mel spectra, as
transformers' ``WhisperFeatureExtractor`` gives them, and the two convolutions over them.

A spectrum is a product with cosines and sines under a Hann window, which one convolution is for all of them:
operators that every client has, where the standard one for a Fourier transform is missing in most.
"""

import numpy as np
import onnx_ir as ir

from ...compress.model.hearing.hearing import Hearing
from ...compress.text.log_mel import LogMel
from ...compress.text.spectra import filters
from ...errors import CheckpointError
from .build import Build
from .graph_writer import Array, GraphWriter
from .mlp_nodes import activate

# The graph's input, and the part that makes spectra of it.
SOUND = "audio"
FLOAT = ir.DataType.FLOAT
_LEAST_POWER, _RANGE, _MIDDLE = 1e-10, 8.0, 4.0


def spectra_of_sound(build: Build, hearing: Hearing) -> ir.Value:
    """``[batch, bins, frames]`` of the graph's input ``audio [batch, samples]``."""
    if hearing.log_mel is None:
        raise CheckpointError(
            "nothing says how sounds become the spectra that this model reads",
            fix="put the model's own preprocessor_config.json beside its weights",
        )
    sound = build.graph.input(SOUND, FLOAT, ["batch_size", hearing.log_mel.samples])
    spectra = log_mel(build.graph, sound, hearing.log_mel)
    build.end_part(SOUND, [sound], [spectra])
    return spectra


def sound_states(build: Build, hearing: Hearing, spectra: ir.Value) -> ir.Value:
    """``[batch, tokens, hidden]`` of ``spectra [batch, bins, frames]``."""
    graph, value = build.graph, spectra
    for module, step in zip(hearing.convolutions, (1, 2), strict=True):
        weights = [build.vector(f"{module}.{part}") for part in ("weight", "bias")]
        value = graph.node("Conv", module, [value, *weights], kernel_shape=[3], pads=[1, 1], strides=[step])
        value = activate(build, value, "gelu", f"{module}.act")
    states = graph.node("Transpose", "sound.states", [value], perm=[0, 2, 1])
    return graph.node("Add", "sound.placed", [states, build.table(hearing.positions)])


def log_mel(graph: GraphWriter, sound: ir.Value, how: LogMel) -> ir.Value:
    """``[batch, bins, frames]`` of ``sound [batch, samples]``."""

    def number(name: str, value: float) -> ir.Value:
        return graph.constant(f"sound.{name}", np.array(value, np.float32))

    power = _powers(graph, sound, how)
    bank = graph.weight("sound.filters", FLOAT, [how.bins, how.window // 2 + 1], lambda: filters(how))
    mel = graph.node("MatMul", "sound.mel", [bank, power])
    least = graph.node("Max", "sound.least", [mel, number("least_power", _LEAST_POWER)])
    log = graph.node("Mul", "sound.log10", [graph.node("Log", "sound.log", [least]), _tenth(graph)])
    axes = graph.constant("sound.axes", np.array([1, 2], np.int64))
    loudest = graph.node("ReduceMax", "sound.loudest", [log, axes], keepdims=1)
    floor = graph.node("Sub", "sound.floor", [loudest, number("range", _RANGE)])
    above, middle = graph.node("Max", "sound.above", [log, floor]), number("middle", _MIDDLE)
    return graph.node("Div", "sound.log_mel", [graph.node("Add", "sound.shifted", [above, middle]), middle])


def _tenth(graph: GraphWriter) -> ir.Value:
    return graph.constant("sound.of_ten", np.array(1 / np.log(10), np.float32))


def _powers(graph: GraphWriter, sound: ir.Value, how: LogMel) -> ir.Value:
    """``[batch, window / 2 + 1, frames]``: the first window's middle is the first sample, so that the sound
    is mirrored at its ends; the last window, whose middle would be the end, is left out.
    """
    half, parts = how.window // 2, how.window // 2 + 1
    behind = how.window - half - how.hop
    middle = graph.constant("sound.channel", np.array([1], np.int64))
    row = graph.node("Unsqueeze", "sound.row", [sound, middle])
    pads = graph.constant("sound.pads", np.array([0, 0, half, 0, 0, behind], np.int64))
    mirrored = graph.node("Pad", "sound.mirrored", [row, pads], mode="reflect")
    kernel = graph.weight("sound.waves", FLOAT, [2 * parts, 1, how.window], lambda: waves(how.window))
    both = graph.node("Conv", "sound.spectra", [mirrored, kernel], strides=[how.hop])
    squares = graph.node("Mul", "sound.squares", [both, both])
    sizes = graph.constant("sound.parts", np.array([parts, parts], np.int64))
    return graph.node(
        "Add", "sound.powers", graph.outputs("Split", "sound.split", [squares, sizes], 2, axis=1)
    )


def waves(window: int) -> Array:
    """Cosines, then sines, of each frequency, under a Hann window: ``[window + 2, 1, window]``."""
    steps = np.arange(window)
    # The product is taken modulo the window first: angles of many turns would lose digits.
    angles = 2 * np.pi * (np.arange(window // 2 + 1)[:, None] * steps % window) / window
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * steps / window)
    return (np.concatenate([np.cos(angles), np.sin(angles)])[:, None] * hann).astype(np.float32)
