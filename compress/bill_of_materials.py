"""``bom.cdx.json``: what a checkpoint or an export was made of and with, as a CycloneDX ML-BOM.

The model and its files, the base model, the texts with their hashes and licences, the recipe, and the tools
with their versions. What is not known is said to be. Nothing in it depends on the clock or on paths: the same
input, recipe and versions give the same bytes, and the serial number is derived from them.
"""

import uuid
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .. import __version__
from ..files.storage import canonical_json, sha256_file, write_json
from .model.anatomy import Anatomy
from .model.license import SPDX

BOM = "bom.cdx.json"
SPECIFICATION = "1.6"
TOOLS = ("torch", "transformers", "numpy", "safetensors", "tokenizers")
EXPORT_TOOLS = (*TOOLS, "gguf", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu")
UNKNOWN = "unknown: its source states none"
NOT_MEASURED = "not measured while it was made; `edgepress profile` measures it in use"
_SPDX = frozenset(SPDX.values())
_TASKS = {"decoder": "text-generation", "encoder_decoder": "text2text-generation"}

Json = dict[str, Any]


def write_bill_of_materials(
    directory: Path,
    files: Mapping[str, Mapping[str, Any]],
    *,
    made: Mapping[str, Any],
    anatomy: Anatomy,
    architectures: object,
    scheme: str,
    tools: Iterable[str],
    proof_text: str | None = None,
) -> dict[str, Any]:
    """Write the file and return its own entry for ``files`` of the manifest.

    Args:
        files: hash and size of every other file of the directory, the manifest left out.
        made: ``source`` (the base model: name, described, fingerprint, license), ``recipe``, ``calibration``
            and ``reads`` (what else passes read: names and hashes) of the compression, as ``edgepress.json``
            has them.
        proof_text: SHA-256 of the user's text that an export was proven on.
    """
    base, texts = _base(_section(made, "source")), _texts(_section(made, "calibration"), proof_text)
    model = _model(files, base, made, scheme)
    model["modelCard"] = _card(anatomy, architectures, texts)
    components = [base, *_others(_section(made, "reads")), *texts]
    names = [component["bom-ref"] for component in components]
    document: Json = {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPECIFICATION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPECIFICATION,
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": _tools(tools)},
            "component": model,
        },
        "components": components,
        "dependencies": [{"ref": "model", "dependsOn": names}, *({"ref": name} for name in names)],
    }
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, canonical_json(document))}"
    write_json(directory / BOM, document)
    return {"sha256": sha256_file(directory / BOM), "bytes": (directory / BOM).stat().st_size}


def license_name(stated: object) -> str | None:
    """The name in the ``license`` of a manifest's ``source`` or ``calibration``, or None."""
    name = stated.get("name") if isinstance(stated, dict) else None
    return name if isinstance(name, str) else None


def _model(files: Mapping[str, Mapping[str, Any]], base: Json, made: Mapping[str, Any], scheme: str) -> Json:
    recipe = _section(made, "recipe")
    facts = {"scheme": scheme, "recipe_sha256": made.get("recipe_sha256")}
    facts |= {"recipe": canonical_json(recipe) if recipe else None}
    return {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": base["name"],
        "description": f"{base['description']}, stored as {scheme}",
        "licenses": base["licenses"],
        "pedigree": {"ancestors": [{key: value for key, value in base.items() if key != "bom-ref"}]},
        "properties": _properties(facts),
        "components": [
            {"type": "file", "bom-ref": f"file:{name}", "name": name, "hashes": _hashes(entry["sha256"])}
            for name, entry in sorted(files.items())
        ],
    }


def task_of(anatomy: Anatomy) -> str:
    """What a model is for, as model hubs call it."""
    head = anatomy.classifier
    if head is not None and head.by_token:
        return "question-answering" if head.labelled == "span" else "token-classification"
    if anatomy.patches is not None:
        return "image-feature-extraction" if head is None else "image-classification"
    if anatomy.hearing is not None:
        return "automatic-speech-recognition"
    if head is not None:
        return "text-ranking" if len(head.labels) == 1 else "text-classification"
    return _TASKS.get(anatomy.kind, "sentence-similarity")


def _card(anatomy: Anatomy, architectures: object, texts: list[Json]) -> Json:
    parameters: Json = {
        "task": task_of(anatomy),
        "architectureFamily": anatomy.model_type,
        "datasets": [{"ref": text["bom-ref"]} for text in texts],
    }
    if isinstance(architectures, list) and architectures:
        parameters["modelArchitecture"] = str(architectures[0])
    energy = {"properties": _properties({"energy": NOT_MEASURED})}
    return {"modelParameters": parameters, "considerations": {"environmentalConsiderations": energy}}


def _base(source: Mapping[str, Any]) -> Json:
    name = str(source.get("name") or "unknown")
    stated = _section(source, "license")
    facts = {"fingerprint": source.get("fingerprint"), "license_said_by": stated.get("said_by")}
    return {
        "type": "machine-learning-model",
        "bom-ref": "base-model",
        "name": name,
        "description": str(source.get("described") or name),
        "licenses": _licenses(stated),
        "properties": _properties(facts),
    }


def _others(reads: Mapping[str, Any]) -> list[Json]:
    return [
        {
            "type": "data",
            "bom-ref": f"read:{name}",
            "name": name,
            "description": "a checkpoint or file that a pass of the recipe read",
            "licenses": _licenses({}),
            "properties": _properties({"fingerprint": digest}),
        }
        for name, digest in sorted(reads.items())
    ]


def _texts(calibration: Mapping[str, Any], proof_text: str | None) -> list[Json]:
    texts = []
    if calibration:
        facts = {key: calibration.get(key) for key in ("samples", "length", "seed", "documents")}
        facts |= {"license_said_by": _section(calibration, "license").get("said_by")}
        facts |= {"token_ids_sha256": calibration.get("sha256")}
        name = Path(str(calibration.get("source"))).name
        digest = calibration.get("text_sha256")
        texts.append(_text("calibration", name, digest, _section(calibration, "license"), facts))
    if proof_text is not None:
        texts.append(_text("proof", "text of the proof", proof_text, {}, {}))
    return texts


def _text(use: str, name: str, digest: object, stated: Mapping[str, Any], facts: Json) -> Json:
    found: Json = {
        "type": "data",
        "bom-ref": f"text:{use}",
        "name": name,
        "description": f"{use} text",
        "licenses": _licenses(stated),
        "data": [{"type": "dataset", "name": name}],
        "properties": _properties(facts),
    }
    return found | ({"hashes": _hashes(digest)} if isinstance(digest, str) and digest else {})


def _tools(names: Iterable[str]) -> list[Json]:
    found = [{"type": "application", "name": "edgepress", "version": __version__}]
    known = {name: _installed(name) for name in names}
    return found + [
        {"type": "library", "name": name, "version": version} for name, version in known.items() if version
    ]


@cache
def _installed(name: str) -> str | None:
    """The version of a package, whose whole description is read for it, and so once."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _licenses(stated: Mapping[str, Any]) -> list[Json]:
    name = license_name(stated)
    return [{"license": {"id": name} if name in _SPDX else {"name": name or UNKNOWN}}]


def _hashes(sha256: object) -> list[Json]:
    return [{"alg": "SHA-256", "content": str(sha256)}]


def _properties(facts: Mapping[str, Any]) -> list[Json]:
    known = {key: value for key, value in facts.items() if value is not None}
    return [{"name": f"edgepress:{key}", "value": str(value)} for key, value in known.items()]


def _section(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}
