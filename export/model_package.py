"""An ONNX Runtime model package: finished bundles of one model in a directory, each a variant for an
execution provider, of which ONNX Runtime takes the one for the provider that a session asks for.

The layout is that of ONNX Runtime's library ``model_package``, schema 1.0: a ``manifest.json`` of its own
with the components, which for an encoder–decoder are its two graphs. Beside it lies edgepress's manifest with
the hash of every file, and each variant is the whole bundle, which edgepress runs too.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import BundleError, InputError
from ..files.disk import disk_full_is_typed
from ..files.hashed_tree import hash_tree
from ..files.output_paths import refuse_nesting
from ..files.staging import Staging
from ..files.storage import write_json
from ..runtime.bundle.bundle import Bundle
from ..runtime.bundle.directory import CHECKPOINT_MANIFEST, MANIFEST, PACKAGE_SCHEMA

SCHEMA = "1.0"
# By the name of a bundle's provider: what ONNX Runtime calls it, and the kind of device where that is one.
PROVIDERS: dict[str, tuple[str, str | None]] = {
    "cpu": ("CPUExecutionProvider", "cpu"),
    "cuda": ("CUDAExecutionProvider", "gpu"),
    "openvino": ("OpenVINOExecutionProvider", None),
    "tensorrt": ("TensorrtExecutionProvider", "gpu"),
}


def write_package(bundles: Sequence[str | Path], *, output: str | Path, overwrite: bool = False) -> Path:
    """Copy ``bundles`` of one model, each for another provider, into the package ``output``; its path."""
    target = Path(output)
    refuse_nesting(target, list(bundles))
    variants: dict[str, Bundle] = {}
    for path in bundles:
        bundle = Bundle.open(path)
        provider = _provider(bundle)
        if provider in variants:
            raise InputError(
                f"{variants[provider].path} and {path} are both written for {provider}",
                why="ONNX Runtime would always take the first",
                fix="name one bundle for each provider",
            )
        variants[provider] = bundle
    _refuse_strangers(list(variants.values()))
    with Staging(target, overwrite=overwrite) as stage, disk_full_is_typed(stage.target):
        stage.result.mkdir()
        for provider, bundle in variants.items():
            shutil.copytree(bundle.path, stage.result / provider)
        write_json(stage.result / MANIFEST, package_manifest(variants))
        write_json(stage.result / CHECKPOINT_MANIFEST, _own_manifest(stage.result))
        stage.publish()
    return stage.target


def package_manifest(variants: dict[str, Bundle]) -> dict[str, Any]:
    """What ONNX Runtime reads, of bundles by their provider: it refuses keys that it does not know."""
    first = next(iter(variants.values()))
    graphs = {"model": first.graph.name}
    if first.kind == "encoder_decoder":
        graphs = {"encoder": first.encoder_graph.name, "decoder": first.graph.name}
    components = {
        component: {"variants": {name: _variant(name, graph) for name in variants}}
        for component, graph in graphs.items()
    }
    schemes = {name: bundle.scheme for name, bundle in variants.items()}
    return {
        "schema_version": SCHEMA,
        "package_name": first.name,
        "layout": "portable",
        "components": components,
        "additional_metadata": {"edgepress": {"schema": PACKAGE_SCHEMA, "schemes": schemes}},
    }


def _variant(provider: str, graph: str) -> dict[str, Any]:
    name, device = PROVIDERS[provider]
    variant = {"variant_directory": provider, "ep": name, "executor_info": {"ort": {"model_file": graph}}}
    return variant if device is None else {**variant, "device": device}


def _own_manifest(root: Path) -> dict[str, Any]:
    return {"schema": PACKAGE_SCHEMA, "files": hash_tree(root)}


def _provider(bundle: Bundle) -> str:
    """What the bundle is written for."""
    if bundle.own_operators:
        raise InputError(
            f"{bundle.path} has operators that ONNX Runtime does not have",
            fix="export it with --for standard",
        )
    graph = bundle.manifest.get("graph", {})
    described = graph.get("provider") if isinstance(graph, dict) else None
    name = described.get("name") if isinstance(described, dict) else None
    if not isinstance(name, str) or name not in PROVIDERS:
        raise BundleError(
            f"{bundle.path} does not say for which provider it is", fix="export it again with this version"
        )
    return name


def _refuse_strangers(bundles: Sequence[Bundle]) -> None:
    if not bundles:
        raise InputError("a package needs at least one bundle")
    first, *others = bundles
    for other in others:
        if _model(other) != _model(first):
            raise InputError(
                f"{first.path} and {other.path} are not of one model",
                why="a package has one model, in a variant for each provider",
                fix="export the same checkpoint, or others compressed of the same model",
            )


def _model(bundle: Bundle) -> tuple[Any, ...]:
    """What two bundles of one model have in common: what they were compressed of."""
    source = bundle.manifest.get("source")
    made_of = source.get("model") if isinstance(source, dict) else None
    fingerprint = made_of.get("fingerprint") if isinstance(made_of, dict) else None
    return bundle.kind, bundle.name, fingerprint
