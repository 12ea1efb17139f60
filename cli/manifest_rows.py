"""A bundle's manifest as people read it: a row in words for each section that export writes. What is not as
export writes it, and what there are no words for, is shown as it is.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

_DEEP = 8  # levels of a manifest that a row shows
_BRIEF = 116  # characters of a field that fit two rows of a narrow table
# What the words for a field run into where a manifest has something else in its place.
_NOT_AS_WRITTEN = (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError)
_HASH = 12  # characters of a hash that are enough to compare it by eye
# What a proof calls its distances, and what a reader does.
_DISTANCES = {
    "kl_mean": "KL",
    "perplexity_ratio": "perplexity ×",
    "top1_agreement": "same likeliest token",
    "top1_agreement_where_clear": "where its choice is clear",
    "cosine_distance_mean": "cosine distance",
    "label_kl_mean": "KL of labels",
    "label_agreement": "same labels",
}


def rows_in_words(document: dict[str, Any]) -> list[tuple[str, str]]:
    """A label and a text for each field of ``document``, what a reader looks for first."""
    graph = document.get("graph")
    runs_in = graph.get("runs_in") if isinstance(graph, dict) else None
    shown = {"runs_in": runs_in, **document}
    return [_row(key, shown[key]) for key in _ordered(shown)]


def rows_as_they_are(document: dict[str, Any]) -> list[tuple[str, str]]:
    """The fields of ``document`` under the names that they have there, each in full."""
    return [(key, described(document[key])) for key in _ordered(document)]


def _ordered(document: dict[str, Any]) -> list[str]:
    keys = dict.fromkeys([*(key for key in _IN_WORDS if key in document), *document])
    return [key for key in keys if document[key] is not None]


def _row(key: str, value: Any) -> tuple[str, str]:
    label, words = _IN_WORDS.get(key, (key.replace("_", " "), described))
    try:
        return label, words(value)
    except _NOT_AS_WRITTEN:
        return label, described(value)


def brief(text: str) -> str:
    """``text`` in two rows at most."""
    line = "; ".join(text.splitlines())
    return line if len(line) <= _BRIEF else f"{line[: _BRIEF - 1]}…"


def described(value: Any) -> str:
    """A field as it is: a line for each entry of a mapping, equal neighbours in a list once, with their
    number.
    """
    if isinstance(value, dict):
        return "\n".join(f"{key}: {in_a_line(entry)}" for key, entry in value.items() if entry is not None)
    return in_a_line(value)


def in_a_line(value: Any, deep: int = _DEEP) -> str:
    """The same without line breaks, ``deep`` levels of it."""
    if isinstance(value, dict | list) and not deep:
        return "…"
    if isinstance(value, dict):
        entries = (f"{key} {in_a_line(entry, deep - 1)}" for key, entry in value.items() if entry is not None)
        return f"({', '.join(entries)})"
    if isinstance(value, list):
        return _counted(in_a_line(entry, deep - 1) for entry in value) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _counted(texts: Iterable[str]) -> str:
    """``texts``, equal neighbours once with their number: ``30 × 3 heads of 64``."""
    groups = ((text, len(list(group))) for text, group in groupby(texts))
    return ", ".join(text if count == 1 else f"{count} × {text}" for text, count in groups)


def _listed(*parts: str | None) -> str:
    return ", ".join(part for part in parts if part)


def _kind(kind: str) -> str:
    return kind.replace("_", "–")


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def _layers(layers: list[dict[str, str]]) -> str:
    counts = Counter(f"{layer['scheme']} {layer['status']}" for layer in layers)
    return ", ".join(f"{count} × {kind}" for kind, count in counts.most_common())


def _decoder(section: dict[str, Any]) -> str:
    context = f"context of {section['context_length']} tokens"
    each = f"{section['kv_bytes_per_token'] / 1e3:.1f} kB a token"
    return _listed(context, f"{_cache(section)}, {each}", f"vocabulary of {section['vocab_size']}")


def _cache(section: dict[str, Any]) -> str:
    sizes = (f"{layer['kv_heads']} heads of {layer['head_dim']}" for layer in section["layers"])
    return f"{section['kv_dtype']} cache of {_counted(sizes)}"


def _encoder(section: dict[str, Any]) -> str:
    longest = f"reads up to {section['max_length']} tokens"
    return _listed(
        "reads images" if section.get("image") else longest,
        f"hidden size {section['hidden_size']}",
        f"pooling: {section['pooling']}" if section.get("pooling") else None,
        f"{len(section['labels'])} labels" if section.get("labels") else None,
        f"prompts: {', '.join(section['prompts'])}" if section.get("prompts") else None,
    )


def _encoder_decoder(section: dict[str, Any]) -> str:
    longest = f"reads up to {section['max_length']} tokens"
    writes = f"writes up to {section['context_length']} tokens"
    return _listed("reads sounds" if section.get("sound") else longest, writes, _cache(section))


def _graph(section: dict[str, Any]) -> str:
    files = " and ".join(filter(None, (section.get("encoder"), section["file"])))
    operators = f"{section['operators']} operators for {section['provider']['name']}"
    return _listed(files, operators, f"opset {section['opset']}", *section["notes"])


def _proof(section: dict[str, Any]) -> str:
    if section["status"] != "passed":
        return str(section["warning"])
    found = section.get("quantized")
    return f"passed: {largest_difference(section['float']) if found is None else shown_distances(found)}"


def _steps(steps: list[dict[str, Any]]) -> str:
    return ", then ".join(map(_step, steps))


def _step(step: dict[str, Any]) -> str:
    damage = step["damage"] or {}
    said = _listed(
        f"KL {max(damage['kl'], 0.0):.3g}" if "kl" in damage else None,  # less is rounding
        f"same likeliest token {100 * damage['top1']:.1f} %" if "top1" in damage else None,
        f"distance {damage['distance']:.3g}" if "distance" in damage else None,
    )
    return f"{step['pass']} ({said})" if said else str(step["pass"])


def _source(section: dict[str, Any]) -> str:
    text = section["calibration"]
    return _listed(
        f"checkpoint {section['checkpoint_sha256'][:_HASH]}",
        None if text is None else f"calibrated on {text['samples']} × {text['length']} of {text['source']}",
        f"embedding {section['embedding'] or 'in floats'}",
        f"head {section['head'] or 'in floats'}",
    )


def _weights(section: dict[str, Any]) -> str:
    read = section.get("bytes_per_token")
    numbers = f"{section['params'] / 1e6:.1f} M parameters"
    return _listed(numbers, _size(section["bytes"]), f"{_size(read)} of them read a token" if read else None)


def _tool(section: dict[str, Any]) -> str:
    return f"{section['name']} {section['version']}"


# By field: what a row is called, and its words. Other fields follow in the order of the manifest.
_IN_WORDS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "what": ("what", described),
    "described": ("model", described),
    "kind": ("kind", _kind),
    "scheme": ("scheme", described),
    "size_bytes": ("size", _size),
    "layers": ("layers", _layers),
    "decoder": ("decoder", _decoder),
    "encoder": ("encoder", _encoder),
    "encoder_decoder": ("encoder–decoder", _encoder_decoder),
    "graph": ("graph", _graph),
    "runs_in": ("runs in", described),
    "parity": ("proof", _proof),
    "steps": ("steps", _steps),
    "source": ("made from", _source),
    "weights": ("weights", _weights),
    "tool": ("made by", _tool),
}


def shown_distances(found: dict[str, Any]) -> str:
    """The distances of a proof in words, with the bounds that they were held to."""
    bounds, parts = found.get("bounds", {}), []
    for name, words in _DISTANCES.items():
        if name in found and "agreement" in name:
            parts.append(f"{words} {100 * found[name]:.1f} %")
        elif name in found:
            bound = f" (bound {bounds[name]:.2g})" if name in bounds else ""
            parts.append(f"{words} {found[name]:.4g}{bound}")
    return ", ".join(parts)


def largest_difference(found: dict[str, Any]) -> str:
    """That of a graph in floats from torch's model, and its bound."""
    return f"largest difference {found['max_abs_difference']:.3g} (bound {found['bound']:.3g})"
