"""``Subject``: what a prediction needs to know of a model: what a run of its graph does, and its sizes. A
bundle has them in its files; a plan may say them before there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import BundleError, InputError
from ...runtime.bundle.bundle import Bundle
from ...runtime.bundle.graph_file import GraphFile
from .graph_operations import Operations, Run, operations_of

# Of the graphs that are written, those with a router alone look for the rows of each expert.
_ROUTED = "NonZero"


@dataclass(frozen=True)
class Subject:
    """A model as it will run.

    Attributes:
        does: the operations of a run of its graph.
        weights: bytes of the graph and its weights; disk: of everything, within ``disk_band``.
        tokenizer: bytes of the tokenizer's file.
        kv_bytes: that a token takes in the cache; values: that are bound to each run.
        widest: numbers of a token in the widest activation. artifact: the identity of a bundle.
    """

    name: str
    kind: str
    does: Callable[[Run], Operations]
    weights: int
    disk: int
    tokenizer: int
    kv_bytes: int
    values: int
    vocab: int
    widest: int
    context: int
    disk_band: float = 0.0
    notes: tuple[str, ...] = ()
    artifact: str = ""


def of_images(name: str) -> InputError:
    """The error for a model that reads images."""
    return InputError(
        f"{name} reads images, and only what texts take is predicted",
        fix="export it, and time `edgepress encode` or `classify` on the device, with --image",
    )


def bundle_subject(path: Path) -> Subject:
    """The bundle at ``path``.

    Raises:
        BundleError, RefusedByPolicy: it is none, was changed, or is of a mixture of experts.
        InputError: it reads images.
    """
    bundle = Bundle.open(path)
    if bundle.kind == "encoder" and bundle.encoder.image is not None:
        raise of_images(str(path))
    graph = GraphFile.read(bundle.graph)
    if any(node.op == _ROUTED for node in graph.nodes.values()):
        raise BundleError(
            f"{path} is a mixture of experts, of which nothing is predicted",
            why="what a token reads depends on the experts that it goes to",
            fix=f"measure it: edgepress profile {path}",
        )
    tokenizer = path / "tokenizer.json"
    read = tokenizer.stat().st_size if tokenizer.is_file() else 0
    files = bundle.manifest["files"]
    weights = sum(entry["bytes"] for name, entry in files.items() if name.endswith((".onnx", ".data")))
    decoder = bundle.decoder if bundle.kind == "decoder" else None
    subject = Subject(
        name=f"{bundle.name} {bundle.scheme}",
        kind=bundle.kind,
        does=lambda run: operations_of(graph, bundle, run),
        weights=weights,
        disk=bundle.disk_bytes,
        tokenizer=read,
        kv_bytes=decoder.kv_bytes_per_token if decoder else 0,
        values=4 * len(decoder.layers) + 4 if decoder else 4,
        vocab=decoder.vocab_size if decoder else 0,
        widest=0,
        context=decoder.context_length if decoder else bundle.encoder.max_length,
        artifact=bundle.manifest_sha256,
    )
    products = [one.sizes[2] for one in subject.does(Run(1)).counts if one.kind == "product"]
    return replace(subject, widest=max(products, default=0))
