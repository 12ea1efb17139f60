"""The models of a comparison of decoders: their checkpoints, prompts, and their form for every engine.

What an engine runs is made once, so that a measurement only measures.
"""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from ....errors import UnknownName
from ....files.storage import read_json, write_json
from ..makers.random_llama import Size, save_random_llama
from .children import work
from .workspace import Workspace, trouble

LONGEST = 4096


@dataclass(frozen=True)
class DecoderModel:
    """A model of a comparison.

    Attributes:
        title: for tables.
        group_size: input channels per scale, the largest that divides its shapes and that kernels have.
        made: dimensions and type of random weights; None for the demo model of that name.
    """

    name: str
    title: str
    group_size: int
    made: Size | None = None


DECODER_MODELS = {
    "smollm2": DecoderModel("smollm2", "SmolLM2-135M", 64),
    "llama-0.9b": DecoderModel(
        "llama-0.9b", "a random-weight Llama of 0.9 B", 128, Size(2048, 5632, 18, "float32")
    ),
    "llama-7b": DecoderModel("llama-7b", "a random-weight Llama of 7 B", 64, Size(4096, 14336, 32)),
}


def subject(name: str) -> DecoderModel:
    """The subject called ``name``."""
    if name not in DECODER_MODELS:
        raise UnknownName("subject", name, DECODER_MODELS)
    return DECODER_MODELS[name]


def checkpoint(workspace: Workspace, chosen: DecoderModel) -> Path:
    """The float checkpoint of a subject, made if it is not there."""
    from ....compress.model.models import resolve

    if chosen.made is None:
        return resolve(chosen.name).path
    target = workspace.checkpoint(chosen.name)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.partial")
        save_random_llama(part, chosen.made).rename(target)
    return target


def write_prompt(workspace: Workspace, chosen: DecoderModel, source: Path) -> None:
    """Token ids of held-out Wikipedia, as many as all prompts have together at most."""
    from ....compress.text.corpus import texts_from
    from ....compress.text.token_batch import token_stream
    from ....runtime.text.tokenizer import Tokenizer

    ids = token_stream(Tokenizer.open(source), texts_from("wikipedia", split="held-out"), limit=LONGEST)
    workspace.prompts(chosen.name).parent.mkdir(parents=True, exist_ok=True)
    write_json(workspace.prompts(chosen.name), ids.tolist())


def prompts(workspace: Workspace, chosen: DecoderModel, lengths: tuple[int, ...]) -> list[list[int]]:
    """Stretches of the text, one after the other: none is the beginning of another."""
    ids = read_json(workspace.prompts(chosen.name))
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    return [ids[start : start + length] for start, length in zip(starts, lengths, strict=True)]


RECORD = "prepared.json"
TIMEOUT = 3600.0


def prepare(
    workspace: Workspace, chosen: DecoderModel, engines: dict[str, ModuleType], variants: Sequence[str]
) -> list[str]:
    """Make what is missing of ``variants``, or of all where none is named; returns a sentence for every one
    that could not be made.
    """
    source = checkpoint(workspace, chosen)
    write_prompt(workspace, chosen, source)
    problems = []
    for engine, module in engines.items():
        for variant in module.VARIANTS:
            if variants and variant not in variants:
                continue
            artifact = workspace.artifact(chosen.name, engine, variant)
            error = trouble(workspace, engine, module) or ""
            if not error and not (artifact / RECORD).is_file():
                error = _convert(workspace, chosen, source, engine, module, variant)
            if error:
                problems.append(f"{module.TITLE} {variant}: {error}")
    return problems


def _convert(
    workspace: Workspace, chosen: DecoderModel, source: Path, engine: str, module: ModuleType, variant: str
) -> str:
    """Convert into a directory beside the artifact's and rename it; returns the error, or nothing."""
    target = workspace.artifact(chosen.name, engine, variant)
    part = target.with_name(f".{target.name}.partial")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    job = {
        "do": "convert",
        "variant": variant,
        "checkpoint": str(source),
        "artifact": str(part),
        "group_size": chosen.group_size,
    }
    print(f"{chosen.name}: {module.TITLE} {variant}", file=sys.stderr, flush=True)
    done = work(workspace, engine, module, job, timeout=TIMEOUT)
    if done.error:
        write_json(target.with_name(f"{target.name}.error.json"), {"error": done.error})
        shutil.rmtree(part, ignore_errors=True)
        return done.error
    size = sum(file.stat().st_size for file in _kept(part))
    write_json(part / RECORD, {"bytes": size, "cpu_s": done.cpu_s, "peak_rss_bytes": done.peak_rss_bytes})
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    target.with_name(f"{target.name}.error.json").unlink(missing_ok=True)
    return ""


def _kept(artifact: Path) -> list[Path]:
    """The files that are the artifact; a bundle is one by itself, without what it was made from."""
    bundle = artifact / "bundle"
    return [file for file in (bundle if bundle.is_dir() else artifact).rglob("*") if file.is_file()]


def prepared(workspace: Workspace, subject: str, engine: str, variant: str) -> tuple[Path, int, str]:
    """Directory and bytes of an artifact, and why there is none."""
    target = workspace.artifact(subject, engine, variant)
    if (target / RECORD).is_file():
        return target, int(read_json(target / RECORD)["bytes"]), ""
    failed = target.with_name(f"{target.name}.error.json")
    return target, 0, str(read_json(failed)["error"]) if failed.is_file() else "not prepared"
