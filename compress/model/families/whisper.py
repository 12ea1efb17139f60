"""Whisper: an encoder that hears, and a decoder that writes what was said.

Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, 2022, arXiv 2212.04356.
"""

from dataclasses import replace

from ....errors import CheckpointError
from ..anatomy import Anatomy, DecoderEntry, Shapes
from ..hearing.hearing import Hearing
from ._bart_like import LOOKS_AT_WEIGHTS as LOOKS_AT_WEIGHTS
from ._bart_like import SIZES as BART_SIZES
from ._bart_like import Stack, stack_blocks
from ._tensors import Config, flag, integer, norm, shape_of, text

HEARS = True
SIZES = replace(BART_SIZES, positions="max_target_positions")
_ARCHITECTURES = ("WhisperForConditionalGeneration", "WhisperModel")
_EPS, _KERNEL = 1e-5, 3


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    _check_architecture(config)
    base = "model." if any(name.startswith("model.") for name in shapes) else ""
    encoder, decoder = Stack(f"{base}encoder", crosses=False), Stack(f"{base}decoder", crosses=True)
    embedding = f"{decoder.name}.embed_tokens"
    vocabulary, hidden = shape_of(shapes, f"{embedding}.weight", None, None)
    blocks = stack_blocks(config, shapes, encoder, hidden, 0, order="pre")
    blocks += stack_blocks(config, shapes, decoder, hidden, len(blocks), order="pre")
    longest = integer(config, "max_target_positions", 448)
    written = f"{decoder.name}.embed_positions"
    shape_of(shapes, f"{written}.weight", longest, hidden)
    hearing = _hearing(config, shapes, encoder, hidden)
    return Anatomy(
        model_type=text(config, "model_type", ""),
        kind="encoder_decoder",
        base=base,
        renamed=() if base else tuple((part, f"model.{part}") for part in ("encoder", "decoder")),
        hidden_size=hidden,
        vocab_size=vocabulary,
        max_positions=longest,
        blocks=blocks,
        embedding=embedding,
        position_embedding=hearing.positions,
        encoder_norm=norm(shapes, f"{encoder.name}.layer_norm", "layer", _EPS, hidden),
        final_norm=norm(shapes, f"{decoder.name}.layer_norm", "layer", _EPS, hidden),
        decoder_entry=DecoderEntry(written, None),
        head="proj_out",
        tied=True,
        hearing=hearing,
    )


def _check_architecture(config: Config) -> None:
    names = [str(name) for name in config.get("architectures") or []]
    if config.get("is_encoder_decoder") is False or (names and not set(names).intersection(_ARCHITECTURES)):
        raise CheckpointError(
            f"config.json describes {', '.join(names) or 'one stack alone'}, not a Whisper of two",
            fix=f"give the {_ARCHITECTURES[0]} checkpoint of this model",
        )
    if not flag(config, "tie_word_embeddings", True):
        raise CheckpointError(
            "config.json sets tie_word_embeddings to false: a Whisper with a head of its own is not supported"
        )


def _hearing(config: Config, shapes: Shapes, encoder: Stack, hidden: int) -> Hearing:
    tokens = integer(config, "max_source_positions", 1500, largest=1 << 16)
    bins = integer(config, "num_mel_bins", 80, largest=1 << 12)
    first, second = (f"{encoder.name}.{name}" for name in ("conv1", "conv2"))
    for module, inputs in ((first, bins), (second, hidden)):
        shape_of(shapes, f"{module}.weight", hidden, inputs, _KERNEL)
        shape_of(shapes, f"{module}.bias", hidden)
    positions = f"{encoder.name}.embed_positions"
    shape_of(shapes, f"{positions}.weight", tokens, hidden)
    return Hearing((first, second), positions, bins, tokens)
