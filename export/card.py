"""The model card of an export: what it is, how to run it, how it was made and proven, and what it lost.

What every export has beside what its format writes: the files that go with the model, the card, the bill
of materials, and the manifest with the hash of every file.
"""

import shutil
from pathlib import Path
from typing import Any

from .. import __version__
from ..compress.bill_of_materials import BOM, EXPORT_TOOLS, write_bill_of_materials
from ..compress.model.checkpoint.policy import LICENSES
from ..compress.model_card import CARD, INSTALL, front_matter, licences, losses, words_of
from ..files.escaping import markdown, one_line
from ..files.hashed_tree import hash_tree
from ..files.storage import write_atomic, write_json
from ..runtime.bundle.directory import MANIFEST
from .bundle_manifest import FLOAT_SCHEME, manifest_of, saved_manifest, scheme_label
from .format import ExportFormat, OpenedBy
from .graph.forms.providers import status_of
from .job import ExportJob
from .proof.parity import lost_text

# The same as tokenizer.json in another form: a bundle carries it once.
_REDUNDANT = frozenset(
    {
        *("vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "added_tokens.json"),
        *("source.spm", "target.spm", "target_vocab.json"),
    }
)


def card_of(manifest: dict[str, Any], made: dict[str, Any], command: str, shipped: int) -> str:
    """Markdown with card data for the bundle of ``manifest``.

    Args:
        made: what its checkpoint was made of.
        command: reproduces it.
        shipped: bytes of its other files.
    """
    task, verb = _purpose(manifest)
    own, scheme = manifest["graph"]["operators"] == "edgepress", str(manifest["scheme"])
    quantized = scheme != FLOAT_SCHEME
    parts = [
        front_matter(
            made["source"],
            library="edgepress" if own else "onnxruntime",
            task=task,
            tags=["onnx", "edgepress", *(["quantized"] if quantized else []), *words_of(scheme)],
            quantized=quantized,
            measured=_measured(manifest["parity"]),
            on="the text of the export's proof",
        ),
        f"# {markdown(manifest['name'])}, {markdown(scheme)}",
        f"Made from: {markdown(manifest['described'])}. Written by edgepress {__version__}.",
        f"## Use\n\nIn this directory:\n\n```\nedgepress {verb}\n```\n\n{INSTALL.format(extras='cpu')}",
        _elsewhere(command) if own else "",
        _facts(manifest, shipped),
        losses(manifest["layers"]),
        _proof(manifest["parity"]),
        licences(made),
        f"## How it was made\n\n```\n{one_line(command)}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def saved_card(manifest: dict[str, Any], made: dict[str, Any], opened_by: OpenedBy) -> str:
    """Markdown with card data for a model that another runtime opens; arguments as of :func:`card_of`."""
    scheme, proven = str(manifest["scheme"]), manifest["parity"]["status"] == "passed"
    quantized = scheme != FLOAT_SCHEME
    facts = [
        f"- files: {manifest['weights']['bytes'] / 1e6:.1f} MB",
        f"- parameters: {manifest['weights']['params']:,}",
        "- speed and memory in use: not measured by edgepress, which does not run it; "
        "`edgepress verify .` checks the files",
        *(f"- note: {markdown(note)}" for note in manifest["graph"]["notes"]),
    ]
    proof = "every tensor was read back and is the checkpoint's, bit by bit"
    parts = [
        front_matter(
            made["source"],
            library=opened_by.library,
            task=_purpose(manifest)[0],
            tags=["edgepress", *(["quantized"] if quantized else []), *words_of(scheme)],
            quantized=quantized,
        ),
        f"# {markdown(manifest['name'])}, {markdown(scheme)}",
        f"Made from: {markdown(manifest['described'])}. Written by edgepress {__version__}.",
        f"## Use\n\n{opened_by.how}",
        "## Facts\n\n" + "\n".join(facts),
        losses(made.get("layers", [])),
        f"## Proof\n\n{proof if proven else '**Not proven**: exported with `--no-validate`'}.",
        licences(made),
        f"## How it was made\n\n```\n{one_line(manifest['command'])}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _purpose(manifest: dict[str, Any]) -> tuple[str, str]:
    """What the model is for, as model hubs call it, and the verb that does it."""
    if manifest["kind"] == "decoder":
        return "text-generation", 'generate . --prompt "The capital of France is"'
    if manifest["kind"] == "encoder_decoder" and manifest["encoder_decoder"].get("sound") is not None:
        return "automatic-speech-recognition", "generate . --audio speech.wav"
    if manifest["kind"] == "encoder_decoder":
        return "text2text-generation", 'generate . --input "a text"'
    labels = manifest["encoder"].get("labels") or []
    if manifest["encoder"].get("labelled") == "span":
        return "question-answering", 'tag . "a text" --question "a question"'
    if manifest["encoder"].get("labelled") == "token":
        return "token-classification", 'tag . "a sentence"'
    if manifest["encoder"].get("image") is not None:
        verb, task = (
            ("classify", "image-classification") if labels else ("encode", "image-feature-extraction")
        )
        return task, f"{verb} . --image photo.jpg"
    if len(labels) == 1:
        return "text-ranking", 'rerank . "a question" "an answer" "another one"'
    if labels:
        return "text-classification", 'classify . "a sentence"'
    return "sentence-similarity", 'encode . "a sentence" "another one"'


def _measured(parity: dict[str, Any]) -> dict[str, float]:
    """How far the graph, as it is shipped, was from its checkpoint."""
    return {key: value for key, value in parity.get("quantized", {}).items() if isinstance(value, float)}


def _elsewhere(command: str) -> str:
    return (
        "## In other runtimes\n\nThe graph needs edgepress's own operators, which no other runtime has. For "
        "plain ONNX Runtime, onnxruntime-genai, node or a browser, export the checkpoint once more:\n\n"
        f"```\n{one_line(command)} --for standard\n```"
    )


def _tables(source: dict[str, Any]) -> str:
    """The schemes of embedding and head, once where they are the same."""
    named = [source["embedding"], source.get("head", source["embedding"])]
    return " and ".join(dict.fromkeys(name or "float32" for name in named))


def _facts(manifest: dict[str, Any], shipped: int) -> str:
    weights, graph = manifest["weights"], manifest["graph"]
    lines = [
        f"- shipped: {shipped / 1e6:.1f} MB, of which weights {weights['bytes'] / 1e6:.1f} MB",
        "- on the device after the first run: the same; edgepress keeps nothing else there",
        "- memory in use and speed: not measured by the export; `edgepress profile .` measures them",
        f"- parameters: {weights['params']:,}",
        f"- embedding and head: {markdown(_tables(manifest['source']))}",
        f"- graph: opset {graph['opset']}, IR {graph['ir_version']}",
        f"- operators: {graph['operators']}; runs in {markdown(graph['runs_in'])}",
    ]
    lines += _prompts(manifest.get("encoder", {}))
    lines += [f"- storage: {markdown(note)}" for note in graph["notes"]]
    opening = (manifest["source"].get("opens_in") or {}).get("transformers") or {}
    if opening.get("answer", "yes") != "yes":
        opens = f"{markdown(opening['answer'])}: {markdown(opening['why'])}"
        lines.append(f"- the checkpoint itself in plain transformers: {opens}")
    lines += [f"- provider {status}" for status in [status_of(manifest)] if status]
    return "## Facts\n\n" + "\n".join(lines)


def _prompts(encoder: dict[str, Any]) -> list[str]:
    texts, default = encoder.get("prompts", {}), encoder.get("default_prompt")
    if not texts:
        return []
    named = ", ".join(f"{markdown(name)} ({markdown(repr(text))})" for name, text in texts.items())
    unasked = "nothing" if default is None else markdown(default)
    return [f"- prompts in front of a text, by `--prompt`: {named}; where none is asked for: {unasked}"]


def _proof(parity: dict[str, Any]) -> str:
    if parity["status"] != "passed":
        return "## Proof\n\n**Not proven**: exported with `--no-validate`."
    ran = parity["ran"]
    with_what = f" ({ran['instructions']})" if ran["instructions"] else ""
    lines = [f"- run with {ran['operators']} operators{with_what}"]
    lines.append(
        f"- float graph against torch: largest difference {parity['float']['max_abs_difference']:.3g}"
    )
    if "codes" in parity:
        difference = parity["codes"]["max_abs_difference"]
        lines.append(f"- quantized weights against torch: largest difference {difference:.3g}")
    if "caches" in parity:
        difference = parity["caches"]["mean_abs_difference"]
        lines.append(f"- caches in codes against torch: mean difference of a logit {difference:.3g}")
    block = parity.get("quantized", {}).get("block")
    if block is not None:
        lines.append(f"- as shipped, the block farthest from torch: {block['distance']:.3g} of what it adds")
    lines += [f"- as shipped, {key}: {value:.4g}" for key, value in _measured(parity).items()]
    if "greedy" in parity:
        greedy = parity["greedy"]
        lines.append(
            f"- greedy continuation as shipped: {greedy['tokens']} tokens, each torch's choice or within "
            f"{greedy['tie_margin']:.3g} of its logit"
        )
    lines += [f"- **{lost}**" for lost in [lost_text(parity)] if lost]
    return "## Proof\n\n" + "\n".join(lines)


def copy_companions(job: ExportJob, bundle: Path) -> None:
    """Tokenizer, licences and config of the model, for a bundle."""
    reader = job.source.reader
    names = reader.companions()
    redundant = _REDUNDANT if "tokenizer.json" in names else frozenset()
    for name in names:
        if name not in redundant:
            (bundle / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(reader.file(name), bundle / name)
    config = {key: value for key, value in reader.config.items() if key != "quantization_config"}
    write_json(bundle / "config.json", config)


def copy_licenses(job: ExportJob, directory: Path) -> None:
    """What the licence of a model asks to be kept with it."""
    for path in sorted(path for pattern in LICENSES for path in job.path.glob(pattern) if path.is_file()):
        shutil.copyfile(job.source.reader.file(path.name), directory / path.name)


def describe(
    plugin: ExportFormat[Any],
    job: ExportJob,
    directory: Path,
    sections: dict[str, Any],
    parity: dict[str, Any],
    command: str,
) -> None:
    """Write the manifest, with the hash of every other file; card and bill of materials first."""
    stored = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
    opened_by = plugin.opened_by(job)
    if opened_by is None:
        manifest = manifest_of(job, sections, parity)
        card = card_of(manifest, job.made, command, stored)
    else:
        manifest = saved_manifest(job, sections, parity, stored, command)
        card = saved_card(manifest, job.made, opened_by)
    write_atomic(directory / CARD, card.encode())
    files = hash_tree(directory, skip=frozenset({MANIFEST, BOM}))
    text, origin = parity.get("text"), {"fingerprint": job.source.reader.fingerprint()} | job.made["source"]
    files[BOM] = write_bill_of_materials(
        directory,
        files,
        made=job.made | {"source": origin},
        anatomy=job.source.anatomy,
        architectures=job.source.reader.config.get("architectures"),
        scheme=scheme_label(job),
        tools=EXPORT_TOOLS,
        proof_text=text.get("sha256") if isinstance(text, dict) else None,
    )
    write_json(directory / MANIFEST, {**manifest, "files": files})
