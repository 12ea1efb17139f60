"""What a planned checkpoint will take as a bundle: codes with float16 scales, all else in float32."""

from collections.abc import Mapping
from math import prod

from .model.anatomy import Anatomy
from .model.weights import WeightSource
from .numbers.scheme import Scheme
from .numbers.table_scheme import rows_of

# The card and the bill of materials; nodes of the graph and lines of the manifest for each block.
_AROUND, _A_BLOCK = 60_000, 4_000
_FLOAT, _SCALE, _ZERO = 32, 16, 8  # as edgepress's own operators store them
_LINE = 32  # bits of a row in a line of 64 bytes, which 16 rows share; their scales end with one
_COPIED = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def bits_in_bundle(scheme: Scheme | None, in_features: int) -> float:
    """Bits of a weight in a row of ``in_features``; of a float format those of its checkpoint."""
    if scheme is None:
        return _FLOAT
    if scheme.format != "int" and not scheme.of_trellis:
        return scheme.bits_per_weight(in_features)
    scales = (_SCALE + (0 if scheme.symmetric else _ZERO)) * scheme.groups(in_features)
    if scheme.activations is None:
        scales = -(-scales // _LINE) * _LINE
    return scheme.bits + scales / in_features


def table_bits(scheme: Scheme | None, rows: int, width: int) -> float:
    """Bits of an embedding or head ``[rows, width]``."""
    if scheme is None:
        return rows * width * _FLOAT
    parts = rows_of(scheme, rows)
    bits = ((part.stop - part.start) * width * bits_in_bundle(one, width) for part, one in parts)
    return float(sum(bits))


def experts_in_float(source: WeightSource) -> list[str]:
    """Experts in MXFP4, as gpt-oss comes: exports hold them in float, since nothing that they are for has
    kernels for such numbers in experts.
    """
    experts = (linear.name for block in source.anatomy.blocks for linear in block.expert_linears())
    found = {name: source.schemes.get(name) for name in experts}
    return [name for name, scheme in found.items() if scheme is not None and scheme.format == "mxfp4"]


def bundle_bytes(
    source: WeightSource,
    left: Anatomy,
    bits: Mapping[str, float],
    tables: tuple[Scheme | None, Scheme | None],
    added: int,
) -> int:
    """Bytes of the bundle's files.

    Args:
        left: what the recipe leaves of the model.
        bits: of a weight of each linear that it names; others are float32.
        tables: the schemes of the embedding and of a head that is not the embedding; None is float.
        added: bytes that the recipe adds.
    """
    linears = list(left.linears())
    total = sum(one.out_features * one.in_features * bits.get(one.name, _FLOAT) for one in linears)
    # What makes states of squares of an image is no table, and stays in float.
    named = [] if left.patches is not None else [left.embedding]
    named += [left.head] if left.head is not None and not left.tied else []
    schemes = [scheme for _, scheme in zip(named, tables, strict=False)]
    schemes += [tables[0]] if left.both_look_up else []  # in a table each
    total += sum(table_bits(scheme, left.vocab_size, left.hidden_size) for scheme in schemes)
    skipped = {f"{name}.weight" for name in named} | set(source.anatomy.copies())
    skipped |= {f"{linear.name}.weight" for linear in source.anatomy.linears()}
    total += _FLOAT * sum(prod(shape) for name, shape in source.shapes.items() if name not in skipped)
    # Cosines and sines of every position.
    total += sum(2 * _FLOAT * left.max_positions * (rope.dim // 2) for rope in left.ropes())
    if left.relative is not None:  # q and k of every distance
        total += sum(
            4 * _FLOAT * left.relative.span * block.attention.q.out_features for block in left.blocks
        )
    how = None if left.hearing is None else left.hearing.log_mel
    if how is not None:  # the waves that a spectrum is made of, and its filters
        total += _FLOAT * (how.window // 2 + 1) * (2 * how.window + how.bins)
    files = (source.reader.path / name for name in _COPIED)
    around = _AROUND + _A_BLOCK * sum(block.repeats for block in left.blocks)
    return int(total / 8) + added + around + sum(file.stat().st_size for file in files if file.is_file())
