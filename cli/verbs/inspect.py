"""``edgepress inspect PATH``: what a checkpoint or bundle holds, without loading its weights."""

from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

import click

from ...errors import InputError, require
from ...files.storage import read_json
from ...terminal.progress import Terminal
from .. import completion
from ..bundle_options import download as download_option
from ..bundle_options import named_model
from ..manifest_rows import brief, described, in_a_line, rows_as_they_are, rows_in_words
from ..verb import Verb, output

# What a reader calls the fields of a checkpoint.
_LABELS = {
    "described": "model",
    "model_type": "family",
    "hidden_size": "hidden size",
    "vocab_size": "vocabulary",
    "kv_heads": "key/value heads",
    "head_dim": "head dimension",
    "block_sizes": "blocks differ",
    "tied": "tied embedding",
    "kv_cache": "cache",
    "max_positions": "context",
    "params": "parameters",
    "bytes": "size",
    "widths": "bits by block",
    "runs_on": "runs on",
    "opens_in": "opens in",
}


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
    """The manifest of a bundle, or of a model saved for another runtime, without its file list."""
    from ...runtime.bundle.directory import SAVED_SCHEMA

    manifest = read_json(path / "manifest.json")
    if not isinstance(manifest, dict):
        raise InputError(f"{path / 'manifest.json'} is not a JSON object")
    shown = {key: value for key, value in manifest.items() if key not in ("files", "path", "what")}
    size = _bytes_of(manifest.get("files"))
    what = "saved" if manifest.get("schema") == SAVED_SCHEMA else "bundle"
    return {"path": str(path), "what": what, **({} if size is None else {"size_bytes": size}), **shown}


def _bytes_of(files: Any) -> int | None:
    """Bytes of all files that a manifest lists; None where it is no list of files."""
    entries = list(files.values()) if isinstance(files, dict) else []
    sizes = [entry.get("bytes") if isinstance(entry, dict) else None for entry in entries]
    whole = [size for size in sizes if isinstance(size, int)]
    return sum(whole) if sizes and len(whole) == len(sizes) else None


def _checkpoint_rows(document: dict[str, Any]) -> list[tuple[str, str]]:
    """What :func:`inspect_checkpoint` found, as people read it."""
    fields = {"what": document["what"], "described": document["described"], **document}
    del fields["path"], fields["layers"]
    if (sizes := fields["block_sizes"]) is not None:
        widths = [block["ffn"] for block in sizes]
        fields["block_sizes"] = f"MLP widths {min(widths)} to {max(widths)}"
    for key, unit in (("bytes", "MB"), ("params", "M")):
        fields[key] = f"{fields[key] / 1e6:.1f} {unit}"
    fields["opens_in"] = {
        where: ": ".join(filter(None, found.values())) for where, found in fields["opens_in"].items()
    }
    for key in ("runs_on", "widths"):
        fields[key] = "\n".join(fields[key]) if fields[key] is not None else None
    fields["tied"] = "yes: the head is the embedding" if fields["tied"] else "no"
    counts = Counter(layer["scheme"] for layer in document["layers"])
    fields["linears"] = ", ".join(f"{count} × {scheme}" for scheme, count in counts.items())
    return [(_LABELS.get(key, key), described(value)) for key, value in fields.items() if value is not None]


# What is known of a layer, in the order in which it is shown.
_OF_A_LAYER = ("name", "shape", "scheme", "status", "error", "bytes", "step")


def _layer_line(layer: Any) -> str:
    """A line for a layer, as far as the entry of a manifest is one."""
    if not isinstance(layer, dict):
        return in_a_line(layer)
    keys = dict.fromkeys([*(key for key in _OF_A_LAYER if key in layer), *layer])
    return "  ".join(in_a_line(layer[key]) for key in keys if layer[key] is not None)


def _rows(document: dict[str, Any], *, whole: bool) -> list[tuple[str, str]]:
    """Labels and texts; ``whole`` leaves the layers to lines of their own."""
    if document["what"] == "checkpoint":
        return _checkpoint_rows(document)
    fields = {key: value for key, value in document.items() if key != "path"}
    if not whole:
        return rows_in_words(fields)
    return rows_as_they_are(
        {key: value for key, value in fields.items() if key != "layers" or not isinstance(value, list)}
    )


def _shown(document: dict[str, Any], *, whole: bool) -> Any:
    """A table, and behind it a line for each layer where they are shown as a ``whole``."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, title=Text(str(document["path"])), title_justify="left")
    table.add_column("field")
    table.add_column("value", overflow="fold")
    for label, text in _rows(document, whole=whole):
        table.add_row(Text(label), Text(text if whole else brief(text)))
    if not whole:
        table.caption, table.caption_justify = Text("every layer and field: --layers, or --json"), "left"
        return table
    layers = document.get("layers")
    lines = map(_layer_line, layers if isinstance(layers, list) else ())
    return Group(table, *(Text(line, overflow="fold") for line in lines))


@click.command("inspect", cls=Verb, short_help="Show what a checkpoint or bundle holds.")
@click.argument("path", type=completion.ModelName(), shell_complete=completion.models)
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
    terminal.document(document, None if terminal.as_json else _shown(document, whole=layers))
