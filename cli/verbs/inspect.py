"""``edgepress inspect PATH``: what a checkpoint or bundle holds, without loading its weights."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from math import prod
from pathlib import Path
from typing import Any

import click

from ...errors import InputError, require
from ...storage import read_json
from ...terminal import Terminal
from .. import completion
from ..bundle_options import download as download_option
from ..bundle_options import named_model
from ..verb import Verb, output

_DEEP = 8  # levels of a manifest that a table shows
# What a reader looks for in a bundle; other fields of its manifest follow as they are.
_FIRST = ("what", "described", "kind", "scheme", "size_bytes", "layers")
_BRIEF = 112  # characters of a field that fit two rows of a table


def inspect_checkpoint(path: Path) -> dict[str, Any]:
    """Anatomy, schemes and sizes of a checkpoint directory as JSON."""
    from ...compress.model.checkpoint.block_sizes import BLOCK_SIZES
    from ...compress.model.opens_in import opens_in_transformers
    from ...compress.model.weights import WeightSource
    from ...compress.numbers.scheme import runs_on
    from ...compress.solve.allocation import mixed_strip

    source = WeightSource.open(path)
    coded = source.reader.coded
    anatomy, made = source.anatomy, source.manifest.get("source")
    first = next(iter(anatomy.attentions()), None)
    return {
        "path": str(path),
        "what": "checkpoint",
        "model_type": anatomy.model_type,
        "kind": anatomy.kind,
        "blocks": len(anatomy.blocks),
        "hidden_size": anatomy.hidden_size,
        "vocab_size": anatomy.vocab_size,
        "heads": first.heads if first else None,
        "kv_heads": first.kv_heads if first else None,
        "head_dim": first.head_dim if first else None,
        "block_sizes": source.reader.config.get(BLOCK_SIZES),
        "tied": anatomy.tied,
        "kv_cache": source.kv_scheme.name if source.kv_scheme else None,
        "max_positions": anatomy.max_positions,
        "params": _parameters(source),
        "bytes": sum(source.reader.nbytes(name) for name in source.reader.shapes),
        "scheme": source.manifest.get("scheme"),
        "from": coded.described or None,
        "widths": mixed_strip(anatomy, source.schemes) or None,
        "runs_on": runs_on(source.schemes.values()) or None,
        "opens_in": {"transformers": opens_in_transformers(source).as_dict()},
        "described": made.get("described") if isinstance(made, dict) else None,
        "layers": [_layer(source, linear) for linear in anatomy.linears()],
    }


def _layer(source: Any, linear: Any) -> dict[str, Any]:
    """A linear with its shape and scheme, and its bytes on disk."""
    scheme = source.schemes.get(linear.name)
    return {
        "name": linear.name,
        "shape": [linear.out_features, linear.in_features],
        "scheme": scheme.name if scheme else _stored_as(source, linear.name),
        "bytes": source.stored_bytes(f"{linear.name}.weight"),
    }


def _stored_as(source: Any, module: str) -> str:
    """The type of a linear in float, or what another tool stored in its place."""
    coded = source.reader.coded.by_module.get(module)
    return f"{coded.bits} bits" if coded else str(source.reader.dtypes[f"{module}.weight"])


def _parameters(source: Any) -> int:
    """How many numbers weights and biases are, a copy of another not counted."""
    copies = source.anatomy.copies()
    shapes = {name: shape for name, shape in source.shapes.items() if name not in copies}
    return sum(prod(shape) for name, shape in shapes.items() if name.endswith((".weight", ".bias")))


def inspect_bundle(path: Path) -> dict[str, Any]:
    """The manifest of a bundle, or of a model saved for another runtime, without its file list.

    Raises:
        InputError: it is no JSON object.
    """
    from ...runtime.bundle.manifest import SAVED_SCHEMA

    manifest = read_json(path / "manifest.json")
    if not isinstance(manifest, dict):
        raise InputError(f"{path / 'manifest.json'} is not a JSON object")
    shown = {key: value for key, value in manifest.items() if key != "files"}
    size = _bytes_of(manifest.get("files"))
    what = "saved" if manifest.get("schema") == SAVED_SCHEMA else "bundle"
    return {"path": str(path), "what": what, **({} if size is None else {"size_bytes": size}), **shown}


def _bytes_of(files: Any) -> int | None:
    """Bytes of all files that a manifest lists; None where it is no list of files."""
    entries = list(files.values()) if isinstance(files, dict) else []
    sizes = [entry.get("bytes") if isinstance(entry, dict) else None for entry in entries]
    whole = [size for size in sizes if isinstance(size, int)]
    return sum(whole) if sizes and len(whole) == len(sizes) else None


def described(value: Any) -> str:
    """A field as a table shows it: a line for each entry of a mapping, equal neighbours in a list once, with
    their number.
    """
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_inline(entry)}" for key, entry in value.items() if entry is not None)
    return _inline(value)


def _inline(value: Any, deep: int = _DEEP) -> str:
    if isinstance(value, dict | list) and not deep:
        return "…"
    if isinstance(value, dict):
        entries = (f"{key} {_inline(entry, deep - 1)}" for key, entry in value.items() if entry is not None)
        return f"({', '.join(entries)})"
    if isinstance(value, list):
        texts = (_inline(entry, deep - 1) for entry in value)
        groups = ((text, len(list(group))) for text, group in groupby(texts))
        return ", ".join(text if count == 1 else f"{count} × {text}" for text, count in groups) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _bundle_fields(document: dict[str, Any]) -> dict[str, Any]:
    """The manifest, whose fields may be anything but for the size."""
    size = document.get("size_bytes")
    shown = {**document, "size_bytes": f"{size / 1e6:.1f} MB"} if isinstance(size, int) else document
    names = dict.fromkeys([*(name for name in _FIRST if name in shown), *shown])
    return {name: shown[name] for name in names}


def _checkpoint_fields(document: dict[str, Any]) -> dict[str, Any]:
    """What :func:`inspect_checkpoint` found, as people read it."""
    fields = {key: value for key, value in document.items() if key != "layers"}
    if (sizes := fields["block_sizes"]) is not None:
        widths = [block["ffn"] for block in sizes]
        fields["block_sizes"] = f"unequal, MLP widths {min(widths)} to {max(widths)}"
    for key, unit in (("bytes", "MB"), ("params", "M")):
        fields[key] = f"{fields[key] / 1e6:.1f} {unit}"
    fields["opens_in"] = {
        where: ": ".join(filter(None, found.values())) for where, found in fields["opens_in"].items()
    }
    for key in ("runs_on", "widths"):
        fields[key] = "\n".join(fields[key]) if fields[key] is not None else None
    counts = Counter(layer["scheme"] for layer in document["layers"])
    return {**fields, "linears": ", ".join(f"{count} × {scheme}" for scheme, count in counts.items())}


def _layer_lines(layers: list[Any]) -> list[str]:
    """A line for each layer, as far as an entry is one."""
    return [
        "  ".join(_inline(value) for value in layer.values()) if isinstance(layer, dict) else _inline(layer)
        for layer in layers
    ]


def _layers_counted(layers: list[Any]) -> str | None:
    """``210 × W4A16-g64 ok``, or None where the entries are none that export wrote."""
    if not all(isinstance(layer, dict) and {"name", "scheme", "status"} <= layer.keys() for layer in layers):
        return None
    counts = Counter(f"{layer['scheme']} {layer['status']}" for layer in layers)
    return ", ".join(f"{count} × {kind}" for kind, count in counts.most_common())


def _brief(value: Any) -> str:
    """A field in two rows at most."""
    text = "; ".join(described(value).splitlines())
    return text if len(text) <= _BRIEF else f"{text[: _BRIEF - 1]}…"


def _table(document: dict[str, Any], *, whole: bool) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, title=Text(str(document["path"])), title_justify="left")
    table.add_column("field")
    table.add_column("value", overflow="fold")
    is_checkpoint, layers = document["what"] == "checkpoint", document.get("layers")
    shown = dict((_checkpoint_fields if is_checkpoint else _bundle_fields)(document))
    if isinstance(layers, list):
        if whole:
            shown["layers"] = "\n".join(_layer_lines(layers))
        elif not is_checkpoint:
            shown["layers"] = _layers_counted(layers) or layers
    for key, value in shown.items():
        if key != "path" and value is not None:
            table.add_row(Text(key), Text(described(value) if whole else _brief(value)))
    if not whole:
        table.caption, table.caption_justify = Text("every layer and field: --layers, or --json"), "left"
    return table


@click.command("inspect", cls=Verb, short_help="Show what a checkpoint or bundle holds.")
@click.argument("path", shell_complete=completion.models)
@download_option
@click.option("--layers", is_flag=True, help="Every layer, and every field in full.")
@output
def command(path: str, download: bool, layers: bool, terminal: Terminal) -> None:
    """Show what PATH holds: an HF directory, a compressed checkpoint, a bundle, a .gguf, a demo name or a hub
    id.
    """
    if (Path(path) / "manifest.json").is_file():
        document = inspect_bundle(Path(path))
    else:
        require("torch", "compress")
        named_model(path, download=download)
        from ...compress.model.models import resolve

        document = inspect_checkpoint(resolve(path, terminal.progress).path)
    terminal.document(document, None if terminal.as_json else _table(document, whole=layers))
