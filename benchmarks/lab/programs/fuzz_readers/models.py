"""Readers that are fuzzed, of what a compression reads: checkpoints, tokenizers, recipes, text, journals.

The files that mutants are made of are written here: a few kilobytes each, made by code.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .....files.storage import sha256_file
from ...same_bytes.pico_models import make_subjects

TEXT = "The river ran 12 € under old stone bridges, naïve señor! 🙂 <|im_end|>"
WORDS: tuple[bytes, ...] = (
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"1e999",
    b"-1",
    b"\\ud800",
    b"\x00",
)


@dataclass(frozen=True)
class Reader:
    """``files``: what is mutated and its form (:func:`.mutations.mutant`); ``read`` gets the path of
    one, which stands in a directory that is whole but for it, and may take ``seconds``.
    """

    files: Mapping[Path, str]
    read: Callable[[Path], object]
    words: Sequence[bytes] = WORDS
    seconds: float = 5.0


def weights(folder: Path) -> Reader:
    """Headers and bytes of safetensors files, and the index of several."""
    from .....compress.model.checkpoint.reader import CheckpointReader

    make_subjects(folder, ["llama-small", "llama-biases"])
    one, many = folder / "models" / "llama-small", folder / "models" / "llama-biases"

    def read(path: Path) -> object:
        reader = CheckpointReader.open(path.parent)
        found = reader.read(reader.shapes)
        reader.close()
        return found

    index, shard = many / "model.safetensors.index.json", many / "model-00001-of-00007.safetensors"
    forms = {one / "model.safetensors": "safetensors", shard: "safetensors", index: "json"}
    return Reader(forms, read)


def config(folder: Path) -> Reader:
    """What a checkpoint says of itself, up to the module that is built of it."""
    import torch

    from .....compress.model.checkpoint.vocabulary_check import check_vocabulary
    from .....compress.model.skeleton import Skeleton
    from .....compress.model.weights import WeightSource

    names = ["llama", "qwen3_moe", "gpt2", "bert-classifier", "t5"]
    make_subjects(folder, names)

    def read(path: Path) -> object:
        source = WeightSource.open(path.parent)
        check_vocabulary(source.reader, source.anatomy)
        return Skeleton(source, torch.device("cpu"))

    made = [folder / "models" / name for name in names]
    files = [one / name for one in made for name in ("config.json", "generation_config.json")]
    return Reader({path: "json" for path in files if path.exists()}, read)


def tokenizer(folder: Path) -> Reader:
    """Tokenizers: what they say of themselves, a text there and back."""
    from .....runtime.text.tokenizer import Tokenizer

    names = ["llama", "bert-classifier", "t5"]
    make_subjects(folder, names)

    def read(path: Path) -> object:
        found = Tokenizer.open(path.parent)
        return found.vocab_size, found.eos_ids, found.decode(found.encode(TEXT, max_length=64)), found.tokens

    made = [folder / "models" / name for name in names]
    files = [one / name for one in made for name in ("tokenizer.json", "tokenizer_config.json")]
    # Odd ones run in a child of their own, which has ten seconds.
    return Reader(dict.fromkeys(files, "json"), read, (*WORDS, b"(a+)+$", b"\\\\p{L}+"), 15.0)


def licence(folder: Path) -> Reader:
    """What a model's own files say of its licence: each file stands alone, since the first one decides."""
    from .....compress.model.license import license_of

    made = {"source": {"license": {"name": "mit", "said_by": "README.md"}}}
    card = "---\nlicense: other\nlicense_name: own\n---\n# Toy\n"
    terms = "MIT License. Permission is hereby granted, free of charge, to all dealings in the software."
    texts = {"edgepress.json": json.dumps(made), "README.md": card, "LICENSE": terms}
    files = {folder / name / name: "json" if name.endswith("json") else "bytes" for name in texts}
    for path in files:
        path.parent.mkdir(parents=True)
        path.write_text(texts[path.name], encoding="utf-8")
    words = (
        *WORDS,
        b"license: ",
        b"---\n",
        b"terms and conditions for use ",
        b"end of terms and conditions ",
    )
    return Reader(files, lambda path: license_of(path.parent), words)


def recipe(folder: Path) -> Reader:
    """Recipes, and the plan that is made of those that can be read."""
    from .....compress import plan as planning
    from .....compress.model.weights import WeightSource
    from .....compress.rates import measured_rates
    from .....compress.recipe import load_recipe
    from .....compress.recipe_files import names, text_of
    from .....files.yaml_safe import load_yaml

    rates = measured_rates()
    vars(planning)["measured_rates"] = lambda: rates  # once: a mutant takes a tenth of the time
    make_subjects(folder, ["llama-wide"])
    source = WeightSource.open(folder / "models" / "llama-wide")
    files: dict[Path, str] = {}
    for name in names():
        text, _ = text_of(name)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
        (folder / f"{name}.json").write_text(json.dumps(load_yaml(text, source=name)), encoding="utf-8")
        files |= {folder / f"{name}.yaml": "bytes", folder / f"{name}.json": "json"}

    def read(path: Path) -> object:
        return planning.plan(source, load_recipe(str(path)), name="x", samples=8, length=64, batch_size=8)

    return Reader(
        files, read, (*WORDS, b"!!python/object/apply:os.system", b"&a ", b"*a", b"<<:", b"\n", b"- ")
    )


def calibration(folder: Path) -> Reader:
    """Calibration text."""
    from .....compress.text.calibration import calibration_from
    from .....runtime.text.tokenizer import Tokenizer

    make_subjects(folder, ["llama"])
    known, texts = Tokenizer.open(folder / "models" / "llama"), folder / "text"
    for name in ("prose.txt", "labelled.jsonl", "chats.jsonl"):
        few = (texts / name).read_bytes().splitlines(keepends=True)[:12]
        (texts / name).write_bytes(b"".join(few))

    def read(path: Path) -> object:
        return calibration_from(str(path), known, kind="decoder", samples=4, length=16, batch_size=2)

    files = {texts / "prose.txt": "bytes", texts / "labelled.jsonl": "jsonl", texts / "chats.jsonl": "jsonl"}
    return Reader(files, read, (*WORDS, b"\xff\xfe", b"\xe2\x80\xa8", b"\r"))


def journal(folder: Path) -> Reader:
    """What a killed run left beside its finished units."""
    from .....compress.pipeline.journal import Journal

    path = folder / "journal.json"
    folder.mkdir(parents=True)
    made = Journal(folder, "key")
    for number in range(3):
        part = folder / f"part-{number}"
        part.write_bytes(bytes(100))
        made.add({"part": {part.name: sha256_file(part)}, "activations": {}})
    return Reader({path: "json"}, lambda path: Journal.open(path.parent, "key").resume())
