"""How a fault of meaning is planted: into what the exporter reads, into the files of an artifact, into what a
stopped run kept, or into the original; and through which stages it then goes.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from ....compress.api import compress_model
from ....compress.model.block_anatomy import BlockAnatomy
from ....compress.numbers.qtensor import QTensor
from ....export.api import export_bundle
from ....export.graph import decoder_graph, whole_graph
from ....export.graph.attention import positions
from ....export.graph.build import Build, WeightView
from ....files.hashed_tree import hash_tree
from ....files.staging import Staging
from ....runtime.bundle.verification import verify_directory

BLOCK = 1
LAYER = f"model.layers.{BLOCK}"
SCHEME, GROUP = "W4A16_ASYM", 32
Change = Callable[[QTensor], QTensor]


@dataclass(frozen=True)
class Place:
    """What is whole before a fault: the model, its checkpoint, its bundle, and a folder for what follows."""

    model: Path
    checkpoint: Path
    bundle: Path
    text: Path
    folder: Path


@dataclass(frozen=True)
class Fault:
    """``run`` plants it and goes through the stages; it raises, or returns problems, where one finds it."""

    name: str
    where: str
    run: Callable[[Place], str]


def codes(linear: str, change: Change) -> Callable[[Place], str]:
    """What the exporter reads of one linear of one block."""

    def run(place: Place) -> str:
        whole = WeightView.quantized

        def planted(self: WeightView, module: str) -> QTensor:
            found = whole(self, module)
            return change(found) if module == f"{LAYER}.{linear}" else found

        with mock.patch.object(WeightView, "quantized", planted):
            return exported(place)

    return run


def read_as(source: str, target: str) -> Callable[[Place], str]:
    """The exporter takes the codes of one linear for those of another of the same shape."""

    def run(place: Place) -> str:
        whole = WeightView.quantized
        wrong, right = f"{LAYER}.{target}", f"{LAYER}.{source}"

        def planted(self: WeightView, name: str) -> QTensor:
            return whole(self, right if name == wrong else name)

        with mock.patch.object(WeightView, "quantized", planted):
            return exported(place)

    return run


def vectors(part: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Place], str]:
    """What the exporter reads of a float tensor."""

    def run(place: Place) -> str:
        whole = WeightView.tensor

        def planted(self: WeightView, name: str) -> torch.Tensor:
            found = whole(self, name)
            return change(found) if name == part else found

        with mock.patch.object(WeightView, "tensor", planted):
            return exported(place)

    return run


def table(module: str) -> Callable[[Place], str]:
    """The rows of embedding or head, each of the next token."""

    def run(place: Place) -> str:
        whole = WeightView._ordered

        def planted(self: WeightView, name: str, read: Any) -> QTensor:
            found = whole(self, name, read)
            order = torch.arange(found.codes.shape[0]).roll(1)
            return found.rows(order) if name == module else found

        def dense(one: torch.Tensor) -> torch.Tensor:
            return one.roll(1, 0)

        with mock.patch.object(WeightView, "_ordered", planted):
            return vectors(f"{module}.weight", dense)(place)

    return run


def rope_off_by_one(place: Place) -> str:
    """The graph's cosines and sines are those of the position before, but for the first."""
    whole = positions.rope_tables

    def planted(*arguments: Any) -> Any:
        return tuple(np.concatenate([one[:1], one[:-1]]) for one in whole(*arguments))

    with mock.patch.object(positions, "rope_tables", planted):
        return exported(place)


def resumed(change: Callable[[Path, Path], None]) -> Callable[[Place], str]:
    """What was kept of a run that ended before its result was published, or the original, is changed; the
    same command has to end with what it makes of the original from the beginning.
    """

    def run(place: Place) -> str:
        model, output = shutil.copytree(place.model, place.folder / "model"), place.folder / "resumed"

        def compress(target: Path) -> dict[str, Any]:
            return hash_tree(compress_model(str(model), scheme=SCHEME, group_size=GROUP, output=target))

        with (
            mock.patch.object(Staging, "publish", side_effect=KeyboardInterrupt),
            suppress(KeyboardInterrupt),
        ):
            compress(output)
        kept = output.with_name(".resumed.partial")
        if not kept.exists():
            raise SystemExit("nothing was kept")
        change(model, kept)
        ended, fresh = compress(output), compress(place.folder / "fresh")
        return "begun again: the bytes of a run from the beginning" if ended == fresh else ""

    return run


def calibrated_on_what_is_evaluated(place: Place) -> str:
    """GPTQ is calibrated with the text that ``validate`` is given."""
    prose = str(place.text / "prose.txt")
    made = compress_model(
        str(place.model), scheme="W4A16", group_size=GROUP, calibration=prose, output=place.folder / "made",
        samples=4, length=64,
    )  # fmt: skip
    bundle = export_bundle(made, output=place.folder / "bundle")
    command = ["validate", str(bundle), "--against", str(place.model), "--text", prose, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "edgepress", *command], capture_output=True, text=True, check=True
    )
    return next(
        (line for line in (done.stdout + done.stderr).splitlines() if "calibrated with" in line), ""
    ).strip()


def anatomy(change: Callable[[BlockAnatomy], BlockAnatomy]) -> Callable[[Place], str]:
    """What the exporter believes of one block."""

    def run(place: Place) -> str:
        with _built(lambda block: change(block) if block.index == BLOCK else block):
            return exported(place)

    return run


@contextmanager
def _built(change: Callable[[BlockAnatomy], BlockAnatomy]) -> Iterator[None]:
    whole = decoder_graph.build_decoder

    def planted(build: Build) -> None:
        found = build.weights.anatomy
        build.weights.anatomy = replace(found, blocks=tuple(map(change, found.blocks)))
        whole(build)

    with mock.patch.object(whole_graph, "build_decoder", planted):
        yield


def exported(place: Place) -> str:
    """Of an export that finds nothing: the empty text."""
    export_bundle(place.checkpoint, output=place.folder / "bundle")
    return ""


def artifact(of: str, change: Callable[[Path, Place], None]) -> Callable[[Place], str]:
    """Files of a copy of the ``checkpoint`` or ``bundle`` after it was made, which ``verify`` looks at."""

    def run(place: Place) -> str:
        copy = shutil.copytree(getattr(place, of), place.folder / of)
        change(copy, place)
        return "; ".join(verify_directory(copy).problems)

    return run


def source(change: Callable[[Path], None]) -> Callable[[Place], str]:
    """Files of a copy of the original before it is compressed and exported."""

    def run(place: Place) -> str:
        copy = shutil.copytree(place.model, place.folder / "model")
        change(copy)
        made = compress_model(str(copy), scheme=SCHEME, group_size=GROUP, output=place.folder / "made")
        export_bundle(made, output=place.folder / "bundle")
        return ""

    return run


def attention(**changes: Any) -> Callable[[Place], str]:
    """Of one block's attention."""
    return anatomy(lambda block: replace(block, mixer=replace(block.attention, **changes)))
