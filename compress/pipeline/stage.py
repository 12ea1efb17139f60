"""A stage of a recipe: what runs between two barriers, from one checkpoint to the next.

A sweep of block passes is one stage, a ``ModelPass`` is another. Each reads a whole checkpoint and leaves the
shards of the next, so that any pass may follow any other. :func:`assemble` joins them into a checkpoint
directory; its manifest is not written here.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ...errors import CalibrationError
from ...files.storage import write_json
from ...terminal.progress import Progress, Silent
from ..measure.fisher import Measure
from ..model.anatomy import module_name
from ..model.block_anatomy import Attention
from ..model.checkpoint.block_sizes import BLOCK_SIZES
from ..model.checkpoint.quantization_config import (
    EXPERTS,
    GGUF_BLOCKS,
    NOT_THERE,
    PUBLISHED,
    TRELLIS_WORDS,
    published_config,
    quantization_config,
)
from ..model.checkpoint.shard_writer import copy_companions, join
from ..model.family import pooler
from ..model.kv_scheme import OWN_KEY, KVScheme, stated
from ..model.weights import WeightSource
from ..numbers.scheme import Scheme
from ..text.calibration import Calibration
from ..text.micro_batches import MEASURED_TOKENS, MeasuredText, MicroBatch, first_tokens, micro_batches_of
from .algorithm import Fixed, Pass
from .backward_sweep import BackwardSweep
from .block import LayerStatus
from .block_pass import PREPARED_AT_ONCE, BlockPass
from .block_shards import Masks
from .processes import ALONE, Processes

Steps = Sequence[tuple[str, Pass]]
LOG = "train.jsonl"
# How gradients are taken, that are only compared with each other.
COMPARED = {
    "precision": Fixed("auto", "gradients are only compared with each other, in what is fast here"),
    "seed": Fixed(0, "labels are drawn once, for all layers and units alike"),
}
MEASURED = {
    "measured_tokens": Fixed(
        MEASURED_TOKENS, "sensitivities only rank layers and units: two batches of text do"
    ),
    **COMPARED,
}


@dataclass(frozen=True)
class Stage:
    """What a stage works with.

    Attributes:
        source: the model as the stages before left it; ``original``: as it came.
        directory: for parts and for whatever a killed run should find again; a log in ``directory / LOG``
            ends up in the result.
        masks: of the weights that are pruned by now; a stage leaves its own in ``directory / "masks"``.
        processes: that work on the stage together, where the pass is one for all of them.
        answers: where teacher logits are cached for other runs too; None where they go with this one.
    """

    source: WeightSource
    original: WeightSource
    directory: Path
    calibration: Calibration | None
    masks: Masks
    device: torch.device
    progress: Progress
    processes: Processes = ALONE
    answers: Path | None = None

    def text(self, who: str) -> Calibration:
        """The calibration text."""
        if self.calibration is None:
            raise CalibrationError(f"{who} needs calibration text", fix="pass --text FILE")
        return self.calibration

    def measured_text(self, who: str, most_read: int = 1) -> MeasuredText:
        """That of it which ``who`` measures on; raises as :meth:`text`."""
        return MeasuredText(self.text(who), who, most_read)

    def measured(self, who: str, measure: Measure) -> dict[str, Tensor]:
        """What ``measure`` finds of all blocks on a few tokens, for ``who``; small things, that fit together.
        Raises what :meth:`text` and :meth:`.backward_sweep.BackwardSweep.run` do.
        """
        return self.measured_on(self.measured_text(who).first, who, measure)

    def measured_on(
        self,
        micro_batches: Sequence[MicroBatch],
        who: str,
        measure: Measure,
        looked_at: Sequence[MicroBatch] = (),
    ) -> dict[str, Tensor]:
        """The same on ``micro_batches``."""
        directory = self.directory / "measured"
        sweep = BackwardSweep(
            self.source, micro_batches, self.device, self.progress, directory, looked_at=looked_at
        )
        files = sweep.run(f"measuring for {who}", measure)
        return {name: tensor for file in files for name, tensor in load_file(file).items()}


@dataclass(frozen=True)
class StageResult:
    """What a stage leaves.

    Attributes:
        parts: safetensors files that together are the model.
        statuses: one a layer and step.
        schemes: of every layer that is quantized now; ``forms``: how each scheme is stored.
        damage: after each step of a sweep, as :meth:`.damage_probe.DamageProbe.compare` has it; empty where
        the finished checkpoint is measured instead. config: entries of ``config.json`` that changed, for
        models whose shape did. details: what a pass wants kept in the manifest. kv_scheme: of the key/value
        cache, whose scales are in ``parts``; None in float. form: the checkpoint whose config and companions
        it has, where that is not the stage's own. files: companions that changed, by name: their JSON, or
        None for those that go.
    """

    parts: list[Path]
    statuses: list[LayerStatus]
    schemes: dict[str, Scheme]
    forms: dict[Scheme, str]
    damage: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    kv_scheme: KVScheme | None = None
    files: dict[str, Any] = field(default_factory=dict)
    form: WeightSource | None = None


@dataclass
class Record:
    """What the manifest says of the stages so far.

    Attributes:
        damage: one entry a step, None where a step was not measured.
        details: by step number, what passes wanted kept.
    """

    statuses: list[LayerStatus] = field(default_factory=list)
    damage: list[dict[str, Any] | None] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def add(self, steps: Steps, result: StageResult, damage: Sequence[dict[str, Any] | None]) -> None:
        """Take in the result of the next ``steps``, and the ``damage`` after each of them."""
        first = len(self.damage)
        if result.details:
            self.details[str(first)] = result.details
        self.damage += damage
        for status in result.statuses:
            status.place = first + min(status.place, len(steps) - 1)
        self.statuses += result.statuses


def prepared(
    steps: Sequence[BlockPass],
    source: WeightSource,
    calibration: Calibration | None,
    device: torch.device,
    progress: Progress,
    directory: Path,
) -> list[list[Path]]:
    """What ``steps`` need of the whole model ahead of their sweep, each kind of pass at once: found by a
    backward sweep in ``directory``, where a resumed run reads it. Of each kind a safetensors file a block.
    """
    found: list[list[Path]] = []
    for kind in dict.fromkeys(type(step) for step in steps):
        tokens = max(step.prepared_tokens or 0 for step in steps if type(step) is kind)
        if not tokens or calibration is None:
            continue
        name = kind.__name__.lower()
        micro_batches = first_tokens(micro_batches_of(calibration, PREPARED_AT_ONCE), tokens)
        sweep = BackwardSweep(source, micro_batches, device, progress, directory / f"prepared-{name}")
        found.append(sweep.run(f"measuring for {name}", kind.prepare(source.anatomy)))
    return found


def assemble(
    source: WeightSource, result: StageResult, directory: Path, progress: Progress | None = None
) -> None:
    """Write weights, ``config.json`` and the companions of ``source`` into ``directory``, made again."""
    source = result.form or source
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    total = sum(part.stat().st_size for part in result.parts)
    with (progress or Silent()).task("writing the checkpoint", total) as task:
        join(result.parts, directory, tick=task.advance)
    config = {name: value for name, value in source.reader.config.items() if name != "quantization_config"}
    config.pop(OWN_KEY, None)
    cache, own = stated(result.kv_scheme, source.anatomy.kind)
    config |= result.config | own
    if config.get(BLOCK_SIZES) is None:
        config.pop(BLOCK_SIZES, None)
    if PUBLISHED in result.forms.values():
        config["quantization_config"] = published_config(cache)
    elif result.schemes or cache is not None:
        config["quantization_config"] = quantization_config(
            result.schemes, result.forms, _others(source, result), cache, _stop(source, result)
        )
    write_json(directory / "config.json", config)
    copy_companions(source.reader, directory)
    for name, content in result.files.items():
        if content is None:
            (directory / name).unlink()
        else:
            write_json(directory / name, content)


def _stop(source: WeightSource, result: StageResult) -> str | None:
    """What keeps others from opening a model whose codes they would not find, or take for others."""
    anatomy = source.anatomy
    found = {result.schemes.get(one.name) for block in anatomy.blocks for one in block.expert_linears()}
    if found - {None} and (len(found) > 1 or any(anatomy.stacked_experts())):
        return EXPERTS
    if any(scheme.of_gguf for scheme in result.schemes.values()):
        return GGUF_BLOCKS
    if any(scheme.of_trellis for scheme in result.schemes.values()):
        return TRELLIS_WORDS
    return NOT_THERE if source.conv1d else None


def _others(source: WeightSource, result: StageResult) -> list[str]:
    """The linear modules of the model that stay in float."""
    anatomy = source.anatomy
    names = [linear.name for linear in anatomy.linears() if linear.name not in result.schemes]
    names += anatomy.gates()
    for block in anatomy.blocks:
        names += () if isinstance(block.mixer, Attention) else block.mixer.own_linears()
    if anatomy.classifier is not None:
        names += anatomy.classifier.modules()
    elif anatomy.kind == "encoder":
        names.append(pooler(source.reader.config))  # transformers adds one to a model saved without it
    if anatomy.tower is not None:
        names += [module_name(anatomy, name) for name in anatomy.tower.linears()]
    if anatomy.embedding_projection is not None:
        names.append(module_name(anatomy, anatomy.embedding_projection))
    if anatomy.head is not None:
        names.append(module_name(anatomy, anatomy.head))
    return names
