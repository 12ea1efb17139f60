"""Thirty faults of meaning, planted one at a time into code or artifact: which stage finds each?

    python -m edgepress.benchmarks.lab.programs.planted_faults [benchmarks/lab/results] [--work DIRECTORY]

Nothing of a planted fault breaks a shape, a type or a file: what it makes runs, and says something else. The
model is a pico Qwen2 (biases, four heads over two of keys, untied) at 4 bits with zero points. Faults in the
exporter's code are patches of what it reads while ``export`` runs; those of an artifact change its files. A
fault that no stage finds is listed with what was published.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ....compress.api import compress_model
from ....compress.model.block_anatomy import BlockAnatomy
from ....compress.numbers.qtensor import QTensor
from ....errors import EdgepressError
from ....export.api import export_bundle
from ..same_bytes.pico_inputs import write_texts
from ..same_bytes.pico_models import save_pico
from ..study.page import write_table
from .planting import (
    GROUP,
    LAYER,
    SCHEME,
    Fault,
    Place,
    anatomy,
    artifact,
    attention,
    calibrated_on_what_is_evaluated,
    codes,
    read_as,
    resumed,
    rope_off_by_one,
    source,
    table,
    vectors,
)

COMMAND = "python -m edgepress.benchmarks.lab.programs.planted_faults"
HEAD, WEIGHTS = 16, "model.safetensors"


def _heads(tensor: QTensor) -> QTensor:
    order = torch.arange(tensor.codes.shape[0])
    order[:HEAD], order[HEAD : 2 * HEAD] = order[HEAD : 2 * HEAD].clone(), order[:HEAD].clone()
    return tensor.rows(order)


def _bit(tensor: QTensor) -> QTensor:
    changed = tensor.codes.clone()
    changed[3, 5] += 1 if changed[3, 5] <= 0 else -1
    return replace(tensor, codes=changed)


def _no_zero(tensor: QTensor) -> QTensor:
    assert tensor.zero_point is not None
    return replace(tensor, zero_point=torch.zeros_like(tensor.zero_point))


def _theta(block: BlockAnatomy) -> BlockAnatomy:
    rope = block.attention.rope
    assert rope is not None
    return replace(block, mixer=replace(block.attention, rope=replace(rope, theta=rope.theta * 1.01)))


def _eps(block: BlockAnatomy) -> BlockAnatomy:
    return replace(block, norm2=replace(block.norm2, eps=10 * block.norm2.eps))


def _bias(block: BlockAnatomy) -> BlockAnatomy:
    part = block.attention
    return replace(block, mixer=replace(part, q=replace(part.q, bias=False)))


def _activation(block: BlockAnatomy) -> BlockAnatomy:
    return replace(block, feed_forward=replace(block.mlp, activation="gelu"))


def edited(name: str, change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """A JSON file of a directory."""

    def edit(folder: Path) -> None:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        change(content)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")

    return edit


def _flip(folder: Path, place: Place) -> None:
    largest = max((path for path in folder.iterdir() if path.is_file()), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[-100] ^= 1
    largest.write_bytes(data)


def _tokenizer(folder: Path, place: Place) -> None:
    edited("tokenizer.json", _swap_tokens)(folder)


def _swap_tokens(content: dict[str, Any]) -> None:
    words = content["model"]["vocab"]
    one, other = list(words)[20:22]
    words[one], words[other] = words[other], words[one]


def _more_tokens(folder: Path) -> None:
    def more(content: dict[str, Any]) -> None:
        content["model"]["vocab"]["another"] = 5000

    edited("tokenizer.json", more)(folder)


def _layers(folder: Path, place: Place) -> None:
    tensors = load_file(folder / WEIGHTS)
    swapped = {"model.layers.0.": "model.layers.1.", "model.layers.1.": "model.layers.0."}
    renamed = {swapped.get(name[:15], name[:15]) + name[15:]: tensor for name, tensor in tensors.items()}
    save_file(renamed, folder / WEIGHTS, {"format": "pt"})


def _other_weights(folder: Path, place: Place) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * 1.001
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def _other_step(model: Path, kept: Path) -> None:
    path = model / WEIGHTS
    before, data = path.stat(), bytearray(path.read_bytes())
    data[-99] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _flip_kept(model: Path, kept: Path) -> None:
    part = max((kept / "work").rglob("*.safetensors"), key=lambda path: path.stat().st_size)
    data = bytearray(part.read_bytes())
    data[-100] ^= 1
    part.write_bytes(data)


def _heads_of_config(folder: Path) -> None:
    edited("config.json", lambda content: content.update(num_attention_heads=2, num_key_value_heads=1))(
        folder
    )


Q, K, V, OUT = (f"self_attn.{name}_proj" for name in "qkvo")
UP, GATE = "mlp.up_proj", "mlp.gate_proj"
EXPORT, BUNDLE, CHECKPOINT, ORIGINAL = "exporter", "bundle", "checkpoint", "original"
RESUME, EVALUATION = "what a run kept", "evaluation"
FAULTS = (
    Fault(
        "scales of q shifted by one group",
        EXPORT,
        codes(Q, lambda one: replace(one, scale=one.scale.roll(1, 1))),
    ),
    Fault(
        "scales of o shifted by one row",
        EXPORT,
        codes(OUT, lambda one: replace(one, scale=one.scale.roll(1, 0))),
    ),
    Fault("two heads of q swapped", EXPORT, codes(Q, _heads)),
    Fault("two heads of v swapped", EXPORT, codes(V, _heads)),
    Fault("one code of up a step off", EXPORT, codes(UP, _bit)),
    Fault("zero points of gate dropped", EXPORT, codes(GATE, _no_zero)),
    Fault("scales of k 0.1 % too large", EXPORT, codes(K, lambda one: replace(one, scale=1.001 * one.scale))),
    Fault("k read as v", EXPORT, read_as(K, V)),
    Fault("gate and up alike", EXPORT, read_as(GATE, UP)),
    Fault("norm folded twice", EXPORT, vectors(f"{LAYER}.input_layernorm.weight", torch.square)),
    Fault("last norm 0.1 % too large", EXPORT, vectors("model.norm.weight", lambda one: 1.001 * one)),
    Fault("bias of k of the next channel", EXPORT, vectors(f"{LAYER}.{K}.bias", lambda one: one.roll(1, 0))),
    Fault("rows of the embedding of their neighbours", EXPORT, table("model.embed_tokens")),
    Fault("head of the next token", EXPORT, table("lm_head")),
    Fault("theta of rope 1 % too large", EXPORT, anatomy(_theta)),
    Fault("rope off by one position", EXPORT, rope_off_by_one),
    Fault("eps of a norm ten times", EXPORT, anatomy(_eps)),
    Fault("bias of q dropped", EXPORT, anatomy(_bias)),
    Fault("another activation", EXPORT, anatomy(_activation)),
    Fault("mask one token short", EXPORT, attention(sliding_window=95)),
    Fault("factor of scores 1 % off", EXPORT, attention(scale=1.01 * HEAD**-0.5)),
    Fault("one bit of the largest file flipped", BUNDLE, artifact("bundle", _flip)),
    Fault("two tokens of the tokenizer swapped", BUNDLE, artifact("bundle", _tokenizer)),
    Fault("a stale journal: weights of another step, size and time kept", RESUME, resumed(_other_step)),
    Fault("a bit of a finished block flipped before the run goes on", RESUME, resumed(_flip_kept)),
    Fault("two layers swapped", CHECKPOINT, artifact("checkpoint", _layers)),
    Fault("a norm of another training step", CHECKPOINT, artifact("checkpoint", _other_weights)),
    Fault("calibrated on the text of evaluation", EVALUATION, calibrated_on_what_is_evaluated),
    Fault("tokenizer of another model", ORIGINAL, source(_more_tokens)),
    Fault("config.json with half the heads", ORIGINAL, source(_heads_of_config)),
)


def found(fault: Fault, place: Place) -> tuple[str, str]:
    """The stage, and what it says; the stage is empty where none finds it."""
    if place.folder.exists():
        shutil.rmtree(place.folder)
    place.folder.mkdir()
    try:
        said = fault.run(place)
    except EdgepressError as error:
        stage = "proof" if error.code == "E-GATE" else "check before the work"
        return stage, error.what.replace(str(place.folder) + "/", "")
    stage = {RESUME: "resume", EVALUATION: "validate"}.get(fault.where, "verify")
    return (stage if said else ""), said.replace(str(place.folder) + "/", "")


def made(work: Path) -> Place:
    """The whole model, checkpoint and bundle."""
    model, text = work / "model", work / "text"
    save_pico(model, "qwen2", {"tie_word_embeddings": False})
    write_texts(text)
    checkpoint = compress_model(str(model), scheme=SCHEME, group_size=GROUP, output=work / "checkpoint")
    bundle = export_bundle(checkpoint, output=work / "bundle")
    return Place(model, checkpoint, bundle, text, work / "planted")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/lab/results"))
    parser.add_argument("--work", type=Path, help="parent of the scratch directory")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.work, prefix="edgepress-planted-") as work:
        place = made(Path(work).resolve())
        rows = []
        for number, fault in enumerate(FAULTS, 1):
            stage, said = found(fault, place)
            rows.append([str(number), fault.where, fault.name, stage or "none", said[:120].replace("|", "/")])
            print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    caught = sum(row[3] != "none" for row in rows)
    write_table(
        arguments.results / "planted-faults.md",
        "Planted faults of meaning",
        COMMAND,
        ["", "planted into", "fault", "found by", "said"],
        rows,
        [
            f"{caught} of {len(rows)} found before publication, or by `verify` of what was published.",
            "Text of evaluation: `validate` answers for any text, and does not compare it with what the "
            "checkpoint's manifest says that it was calibrated with.",
            "What a run kept: a resumed run looks at sizes, times and 64 samples of 4 kB of each file of the "
            "original, which are all bytes of a pico model; of a large one a bit may lie between two.",
        ],
    )


if __name__ == "__main__":
    main()
