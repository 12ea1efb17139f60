"""Mutants of a small file: bytes changed at random, and where the file is JSON (the header of a safetensors
file too), its values swapped for hostile ones.
"""

import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

# Numbers at the edges of what counts, sizes and offsets are written in.
EDGES = (0, 1, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**62, 2**63 - 1)
MOST_BYTES = 1 << 16
_DEEP: Any = None
for _ in range(60):
    _DEEP = [_DEEP]
HOSTILE: tuple[Any, ...] = (
    *(None, True, False, "", [], {}, [None], {"": None}, [[]], [{}], _DEEP),
    *(-1, -(2**63), 2**63, 2**64, 10**30, 0.5, 1.0, -0.0, 1e308, float("inf"), float("nan"), *EDGES),
    *("a", "0", "-1", "null", "NaN", "\x00", "\ud800", "\u202e", "é" * 300, "a" * 5000, "%s%n", "{0}", "\n"),
    *("../x", "/etc/passwd", "/dev/zero", "con", ".", "..", "model.safetensors", "config.json", "C:\\x"),
    *("(a+)+$", "[", "*", "\\", "<script>", "{{ 1 }}", "!!python/object:x", "&a [*a]"),
)


def mutant(data: bytes, form: str, words: Sequence[bytes], generator: random.Random) -> bytes:
    """``data`` changed in one to four places. ``form`` is json, jsonl, safetensors or bytes; ``words`` are
    what its reader acts on, to be put anywhere.
    """
    for _ in range(generator.choice((1, 1, 1, 2, 4))):
        if form != "bytes" and generator.random() < 0.7:
            data = _structured(data, form, generator)
        else:
            data = _bytes(data, words, generator)
    return data[:MOST_BYTES]


def _structured(data: bytes, form: str, generator: random.Random) -> bytes:
    """One value of the JSON in ``data`` replaced, dropped, doubled or moved; ``data`` where it is none."""
    if form == "jsonl":
        lines = data.split(b"\n")
        index = generator.randrange(len(lines))
        lines[index] = _structured(lines[index], "json", generator)
        return b"\n".join(lines)
    head, rest = (data, b"")
    if form == "safetensors":
        end = 8 + int.from_bytes(data[:8], "little")
        head, rest = data[8:end], data[end:]
    try:
        value = json.loads(head)
    except (ValueError, RecursionError):
        return data
    changed = json.dumps(_changed(value, generator)).encode()
    return (len(changed).to_bytes(8, "little") if form == "safetensors" else b"") + changed + rest


def _changed(value: Any, generator: random.Random) -> Any:
    places = list(_places(value))
    if not places:
        return generator.choice(HOSTILE)
    holder, key = generator.choice(places)
    what = generator.randrange(6)
    if what == 0:
        del holder[key]
    elif what == 1:
        other, name = generator.choice(places)
        holder[key] = other[name] if isinstance(other[name], str | int | float) else None
    elif what == 2 and isinstance(holder[key], int | float):
        holder[key] = generator.choice((*EDGES, -holder[key], holder[key] + 1, holder[key] - 1))
    elif what == 3 and isinstance(holder, dict):
        holder[str(generator.choice(HOSTILE))] = holder[key]
    else:
        holder[key] = generator.choice(HOSTILE)
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every list or mapping inside ``value`` with each of its keys."""
    pending = [value]
    while pending:
        holder = pending.pop()
        keys = holder.keys() if isinstance(holder, dict) else range(len(holder) if _is_list(holder) else 0)
        for key in keys:
            yield holder, key
            pending.append(holder[key])


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and value is not _DEEP


def _bytes(data: bytes, words: Sequence[bytes], generator: random.Random) -> bytes:
    """One span of ``data`` flipped, overwritten, cut out, doubled or moved."""
    changed, size = bytearray(data), len(data)
    at = generator.randrange(size + 1)
    what = generator.randrange(7)
    if what == 0 and at < size:
        changed[at] ^= 1 << generator.randrange(8)
    elif what == 1:
        width = generator.choice((1, 2, 4, 8))
        edge = generator.choice(EDGES) % (1 << 8 * width)
        changed[at : at + width] = edge.to_bytes(width, "little")
    elif what == 2:
        del changed[at:]
    elif what == 3:
        del changed[at : at + generator.randrange(1, 32)]
    elif what == 4:
        begin = generator.randrange(size + 1)
        changed[at:at] = changed[begin : begin + generator.randrange(1, 256)]
    elif what == 5 and words:
        word = generator.choice(words)
        changed[at : at + generator.choice((0, len(word)))] = word
    else:
        changed[at : at + 1] = generator.randbytes(generator.randrange(1, 5))
    return bytes(changed)
