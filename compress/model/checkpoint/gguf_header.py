"""The header of a GGUF file, walked and bounded here before the library that reads it for real sees the file.

Magic, version, two counts, then key–value pairs and tensor records, then the data. Lengths in it are 64
bits wide and the file's word for them is worth nothing: each is held against the bytes that are left.
"""

import os
import re
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ....errors import CheckpointError, require
from ....files.storage import open_regular
from ..gguf.few_bits import EARLIER_Q2_0, KINDS
from ..gguf.stored_tensor import StoredTensor
from .gguf_settings.positions import GgufPositions, positions_of
from .gguf_settings.sizes import GgufCursor, check_sizes

VERSIONS = (2, 3)
MAX_PAIRS = 1 << 16
MAX_TENSORS = 1_000_000
MAX_RANK = 4
MAX_NAME_BYTES = 512
# Of a token or a merge: merges are worked out of every pair of parts of every token.
MAX_ITEM_BYTES = 4096
MAX_STRING_BYTES = 16 << 20
MAX_NESTING = 4
# Numbers of a list that are kept: those of blocks, where the tokenizer's have one a token.
MAX_LISTED = 4096

_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file holds: its architecture, the number of weights by the type they are stored in, the
    size of its settings, of which the tokenizer is the most, the licence that it names, and how its
    byte-level BPE cuts text into ``words``, by llama.cpp's name (None for another kind of tokenizer).
    ``settings`` are its architecture's own; ``in_blocks``: the number of weights in blocks by type; ``names``
    those of its tensors, each with its number of weights, and ``tensors`` where they lie; ``special`` the ids
    of special tokens.
    """

    architecture: str
    weights: Counter[str]
    settings_bytes: int
    license: str | None = None
    words: str | None = None
    positions: GgufPositions = field(default_factory=GgufPositions)
    settings: Mapping[str, object] = field(default_factory=dict)
    in_blocks: Counter[str] = field(default_factory=Counter)
    names: Mapping[str, int] = field(default_factory=dict)
    special: Mapping[str, object] = field(default_factory=dict)
    tensors: Mapping[str, StoredTensor] = field(default_factory=dict)

    @property
    def storage(self) -> str:
        """The type that most weights are stored in: ``Q4_1``."""
        return self.weights.most_common(1)[0][0]

    @property
    def described(self) -> str:
        """What the plan says of it: ``4 bits (GGUF, Q4_K)``, the type that most of what is quantized in its
        blocks has; empty where that is nothing.
        """
        for kind, _ in self.in_blocks.most_common():
            bits = re.search(r"\d+", kind)
            if bits is not None and not kind.startswith(("F", "BF")):
                return f"{bits[0]} bits (GGUF, {kind})"
        return ""


def read_gguf_header(path: Path) -> GgufHeader:
    """Check every length, type and extent of a GGUF file."""
    require("gguf", "compress")
    try:
        with open_regular(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            return _header(GgufCursor(path, stream, size), size)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}", why=str(error)) from error


def _header(cursor: GgufCursor, size: int) -> GgufHeader:
    if cursor.take(4, "the magic") != b"GGUF":
        raise cursor.refusal("it does not begin with GGUF")
    version = cursor.unpack("I", "the version")
    if version not in VERSIONS:
        raise cursor.refusal(f"its version is {version}, known are {VERSIONS} in little-endian order")
    tensors = cursor.count("Q", MAX_TENSORS, "the number of tensors")
    pairs = cursor.count("Q", MAX_PAIRS, "the number of key-value pairs")
    settings = _settings(cursor, pairs)
    settings_bytes = size - cursor.left
    architecture, alignment = settings.get("general.architecture"), settings.get("general.alignment", 32)
    if not isinstance(architecture, str) or not architecture.isprintable():
        raise cursor.refusal("it has no general.architecture")
    if type(alignment) is not int or not 8 <= alignment <= 1 << 20 or alignment & (alignment - 1):
        raise cursor.refusal(f"its alignment is {alignment!r}, not a power of two")
    records = _records(cursor, tensors)
    dimensions = {size for tensor in records.values() for size in tensor.dims}
    check_sizes(cursor, _own(settings, architecture), architecture, dimensions, tensors)
    # The data begins at the next aligned byte after the records.
    begin = size - cursor.left + (cursor.left - size) % alignment
    records = _placed(cursor, records, max(size - begin, 0))
    found = {
        name.decode("utf-8", "replace"): replace(tensor, start=begin + tensor.start)
        for name, tensor in records.items()
    }
    counts = {name: tensor.count for name, tensor in records.items()}
    weights, in_blocks = Counter[str](), Counter[str]()
    for name, tensor in found.items():
        weights[tensor.kind] += tensor.count
        in_blocks[tensor.kind] += tensor.count * ("blk." in name)
    licence, words = settings.get("general.license"), settings.get("tokenizer.ggml.pre", "default")
    return GgufHeader(
        architecture,
        weights,
        settings_bytes,
        licence if isinstance(licence, str) else None,
        str(words) if settings.get("tokenizer.ggml.model") == "gpt2" else None,
        positions_of(architecture, _own(settings, architecture), counts),
        _own(settings, architecture),
        in_blocks,
        {name: tensor.count for name, tensor in found.items()},
        _own(settings, "tokenizer.ggml"),
        found,
    )


def _own(settings: dict[str, object], architecture: str) -> dict[str, object]:
    """The settings of the architecture, without its name before theirs."""
    begin = f"{architecture}."
    return {name.removeprefix(begin): value for name, value in settings.items() if name.startswith(begin)}


def _settings(cursor: GgufCursor, pairs: int) -> dict[str, object]:
    settings: dict[str, object] = {}
    for _ in range(pairs):
        name = cursor.string(MAX_NAME_BYTES, "a key").decode("utf-8", "replace")
        if name in settings:
            raise cursor.refusal(f"the key {name!a} occurs twice")
        settings[name] = _value(cursor, int(cursor.unpack("I", f"the type of {name!a}")), name)
    return settings


def _value(cursor: GgufCursor, kind: int, name: str, depth: int = 0) -> object:
    """The value of a pair; a short list of numbers is a tuple, other arrays are walked over and are None."""
    if kind == _STRING:
        limit = MAX_ITEM_BYTES if depth else MAX_STRING_BYTES
        return cursor.string(limit, f"the value of {name!a}").decode("utf-8", "replace")
    if kind in _SCALARS:
        return cursor.unpack(_SCALARS[kind], f"the value of {name!a}")
    if kind != _ARRAY or depth == MAX_NESTING:
        raise cursor.refusal(f"{name!a} has the unknown type {kind}")
    item = int(cursor.unpack("I", f"the type of {name!a}"))
    if item in _SCALARS:
        width = struct.calcsize("<" + _SCALARS[item])
        count = cursor.count("Q", cursor.left // width, f"the length of {name!a}")
        stored = cursor.take(count * width, name)
        return struct.unpack(f"<{count}{_SCALARS[item]}", stored) if count <= MAX_LISTED else None
    for _ in range(cursor.count("Q", cursor.left // 8, f"the length of {name!a}")):
        _value(cursor, item, name, depth + 1)
    return None


def _records(cursor: GgufCursor, count: int) -> dict[bytes, StoredTensor]:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    known: dict[int, tuple[str, int, int]] = {
        kind.value: (kind.name, *GGML_QUANT_SIZES[kind]) for kind in GGMLQuantizationType
    }
    known |= {number: (kind, block, width) for kind, (number, block, width) in KINDS.items()}
    found: dict[bytes, StoredTensor] = {}
    for _ in range(count):
        name = cursor.string(MAX_NAME_BYTES, "a tensor name")
        dims = tuple(
            int(cursor.unpack("Q", f"the shape of {name!a}"))
            for _ in range(cursor.count("I", MAX_RANK, f"the rank of {name!a}"))
        )
        kind = int(cursor.unpack("I", f"the type of {name!a}"))
        start = int(cursor.unpack("Q", f"the offset of {name!a}"))
        if name in found or kind not in known:
            raise cursor.refusal(f"tensor {name!a} occurs twice or has the unknown type {kind}")
        found[name] = one = StoredTensor(dims, *known[kind], start)
        if not dims or not all(dims) or dims[0] % one.block:
            shape = f"the shape {list(dims)}, whose rows are not whole blocks of {one.block}"
            raise cursor.refusal(f"tensor {name!a} has {shape}")
    return found


def _placed(cursor: GgufCursor, records: dict[bytes, StoredTensor], room: int) -> dict[bytes, StoredTensor]:
    """``records`` where all lie apart in ``room`` bytes; if not, those of Q2_0 with blocks of before."""
    refusal = _misplaced(records, room)
    if refusal is None:
        return records
    block, width = EARLIER_Q2_0
    q2_0 = {name: one for name, one in records.items() if one.kind == "Q2_0"}
    earlier = records | {name: replace(one, block=block, width=width) for name, one in q2_0.items()}
    if any(one.dims[0] % block for one in q2_0.values()) or _misplaced(earlier, room) is not None:
        raise cursor.refusal(refusal)
    return earlier


def _misplaced(records: Mapping[bytes, StoredTensor], room: int) -> str | None:
    """What is wrong with the places of tensors in ``room`` bytes."""
    end = 0
    for name, one in sorted(records.items(), key=lambda record: (record[1].start, record[1].size, record[0])):
        if one.start < end:
            return f"tensor {name!a} overlaps the one before it"
        end = one.start + one.size
    return None if records and end <= room else f"its tensors need {end} bytes of data, {room} are there"
