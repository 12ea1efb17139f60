"""A GGUF file as a plain model directory: its weights are dequantized a block at a time and saved as fp32
safetensors, linears of −1, 0 and 1 times a scale (:mod:`..gguf.few_bits`) as codes.

The directory is what everything else reads, so nothing further on knows about GGUF. It is staged and
renamed whole.
"""

import io
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ....errors import CheckpointError, InputError, OutputExists, UnknownName, require
from ....files.disk import disk_full_is_typed, require_disk
from ....files.staging import Staging
from ....files.third_party_errors import third_party_errors_are_typed
from ....terminal.progress import Progress, ProgressTask, Silent
from ...numbers.scheme import Scheme
from ..anatomy import Anatomy, Check, Shapes
from ..family import anatomy_of, expert_names, stored_transposed
from ..gguf.configs import ConfigRow, config_of
from ..gguf.entry import IN_TWO, in_two, plain_settings, stored_shapes
from ..gguf.features import architecture_of
from ..gguf.few_bits import codes_of
from ..gguf.kind_configs import COPIES, row_of
from ..gguf.places import entries, one_by_one
from ..gguf.tensors import GgufTensors
from .gguf_header import GgufHeader, read_gguf_header
from .gguf_settings import factors, positions
from .gguf_text.tokenizer import save_beside, save_tokenizer
from .gguf_words import READ
from .quantization_config import PACKED, forms, quantization_config
from .shard_writer import ONE_FILE, join
from .stored_tensors import stored
from .tensor_check import refuse_non_finite
from .tensor_names import stacked

_SAFETENSORS = "take the model's safetensors checkpoint"
# Of files that have a tensor for each expert, as the first ones of Mixtral do.
_ONE_EXPERT = "blk.0.ffn_gate.0.weight"
# Of T5, which has none of its own where it is not in the file; and what stands behind BERT to learn by.
_HEAD, _POOLER = "lm_head.weight", "pooler."

Edit = Callable[[dict[str, Any], dict[str, Tensor]], None]


def materialise(
    path: Path,
    target: Path,
    *,
    edit: Edit | None = None,
    check: Check | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the model of the GGUF file ``path`` as the directory ``target``, once: an existing one is kept,
    one that another process is writing waited for.

    Args:
        edit: changes the named float32 tensors in place before they are saved; also gets the config.
        check: refuses the model by its anatomy, before a weight is read.
    """
    if (target / "config.json").is_file():
        return target
    header = read_gguf_header(path)
    header = replace(header, settings=plain_settings(header.settings))
    row = row_of(path, header.architecture, header.settings)
    if header.words is not None and header.words not in READ:
        raise UnknownName("way to cut text into words", header.words, list(READ))
    require("accelerate", "compress")
    size = 4 * sum(header.weights.values())
    require_disk(target, (2 * size if size <= ONE_FILE else size) + (64 << 20))
    try:
        _write(path, header, row, target, edit, check, progress or Silent())
    except OutputExists:
        if not (target / "config.json").is_file():  # else another process has written it in the meantime
            raise
    return target


def _write(
    path: Path,
    header: GgufHeader,
    row: ConfigRow,
    target: Path,
    edit: Edit | None,
    check: Check | None,
    progress: Progress,
) -> None:
    with Staging(target, wait=True) as stage:
        model, shapes = _described(path, header, row)
        config = model.config.to_dict()
        anatomy = anatomy_of(config, shapes)
        factors.check(anatomy, path, header.settings)
        positions.check(anatomy, path, header.positions)
        tensors = _tensors(path, header, anatomy, shapes, stored_transposed(config))
        if check is not None:
            check(anatomy)
        stage.result.mkdir()
        save_tokenizer(path, header, stage.result, lambda why: _unreadable(path, header.architecture, why))
        if row.encodes or row.two_stacks:
            save_beside(stage.result, header.settings, header.special)
        blocks: Iterable[dict[str, Tensor]] = map(stacked, tensors.blocks())
        with progress.task(f"dequantizing {path.name}", sum(header.weights.values())) as task:
            if edit is not None:
                whole = {name: tensor for block in blocks for name, tensor in block.items()}
                with torch.no_grad():
                    edit(config, whole)
                blocks = [whole]
            with disk_full_is_typed(target), _reading(path, header.architecture):
                groups = {} if edit is not None else _groups(tensors, anatomy)
                schemes = _save(blocks, groups, stage, task)
                if schemes:
                    kept = [linear.name for linear in anatomy.linears() if linear.name not in schemes]
                    kept += [*anatomy.gates(), *([anatomy.head] if anatomy.head else [])]
                    found = quantization_config(schemes, forms(schemes.values()), kept)
                    model.config.quantization_config = found
                model.config.save_pretrained(stage.result)
                if not row.encodes:
                    model.generation_config.save_pretrained(stage.result)
            stage.publish()


def _groups(tensors: GgufTensors, anatomy: Anatomy) -> dict[str, int]:
    """By linear that may be kept as codes, how many weights share a scale."""
    groups, experts = tensors.groups(), set(anatomy.stacked_experts())
    names = (linear.name for linear in anatomy.linears() if linear not in experts)
    turned = tensors.transposed
    return {name: groups[f"{name}.weight"] for name in names if f"{name}.weight" in groups and not turned}


def _save(
    blocks: Iterable[dict[str, Tensor]], groups: Mapping[str, int], stage: Staging, task: ProgressTask
) -> dict[str, Scheme]:
    """The tensors as safetensors, one file or shards, of which no more than a block is in memory; returns the
    schemes of those linears, of ``groups``, that are codes.
    """
    parts = stage.directory / "parts"
    parts.mkdir()
    written: list[Path] = []
    schemes: dict[str, Scheme] = {}
    for block in blocks:
        refuse_non_finite(block)
        saved = dict(block)
        for full, tensor in block.items():
            name = full.removesuffix(".weight")
            codes = codes_of(tensor, groups[name]) if name in groups else None
            if codes is not None:
                del saved[full]
                saved |= stored(name, codes, PACKED)
                schemes[name] = codes.scheme
        written.append(parts / f"{len(written)}.safetensors")
        save_file({name: tensor.contiguous() for name, tensor in saved.items()}, written[-1])
        task.advance(sum(tensor.numel() for tensor in block.values()), detail=next(iter(block)))
    join(written, stage.result)
    return schemes


def _described(path: Path, header: GgufHeader, row: ConfigRow) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """transformers' model of the file's settings, without weights, and the logical shape of each tensor
    by its name in a checkpoint.
    """
    from accelerate import init_empty_weights
    from transformers import CONFIG_MAPPING, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM
    from transformers.initialization import no_init_weights

    values = config_of(row, header.settings, header.special, header.names)
    with _reading(path, header.architecture), init_empty_weights(include_buffers=True), no_init_weights():
        config = CONFIG_MAPPING[values.pop("model_type")](**values)
        positions.complete(config, path, header.positions)
        if row.encodes:
            model = AutoModel.from_config(config)
        else:
            model = (AutoModelForSeq2SeqLM if row.two_stacks else AutoModelForCausalLM).from_config(config)
    model.config.architectures, model.config.dtype = [type(model).__name__], "float32"
    made = model.config.to_dict()
    turned, experts = stored_transposed(made), expert_names(made)
    left = [_HEAD] if row.two_stacks and "output.weight" not in header.names else []
    found = {
        row.renamed.get(name, name): tuple(value.shape)
        for name, value in model.state_dict().items()
        if name not in (*COPIES, *left) and not name.startswith(_POOLER)
    }
    found = found if experts is None else stored_shapes(found, experts)
    return model, {name: shape[::-1] if name.endswith(turned) else shape for name, shape in found.items()}


def _tensors(
    path: Path, header: GgufHeader, anatomy: Anatomy, shapes: Shapes, turned: tuple[str, ...]
) -> GgufTensors:
    """What the file holds of a model."""
    try:
        places = entries(anatomy, shapes, architecture_of(anatomy))
        if _ONE_EXPERT in header.names:
            places = one_by_one(places)
        if IN_TWO in header.names:
            places = in_two(places, anatomy)
    except InputError as error:
        raise CheckpointError(
            f"{path} describes another {header.architecture} than llama.cpp runs",
            why=error.what,
            fix=_SAFETENSORS,
        ) from error
    joined = any(block.experts is not None and block.experts.stacked for block in anatomy.blocks)
    passed_over = [positions.DIVISORS] if header.positions.divisors else []
    found = {name: tensor for name, tensor in header.tensors.items() if name not in passed_over}
    with third_party_errors_are_typed(lambda why: _unreadable(path, header.architecture, why)):
        return GgufTensors.open(path, places, shapes, turned, found, joined)


@contextmanager
def _reading(path: Path, architecture: str) -> Iterator[str]:
    """Typed errors for transformers' own, and nothing that it prints; gives the directory that it takes for
    the model's: an empty one, so that nothing which lies beside the file is read.
    """
    with (
        tempfile.TemporaryDirectory() as empty,
        _quiet_transformers(),
        redirect_stderr(io.StringIO()),
        third_party_errors_are_typed(lambda why: _unreadable(path, architecture, why)),
    ):
        yield empty


def _unreadable(path: Path, architecture: str, why: str) -> CheckpointError:
    return CheckpointError(
        f"transformers cannot read {path} (architecture {architecture!r})",
        why=why,
        fix=f"check the file against its publisher's hash, or {_SAFETENSORS}",
    )


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Progress bars and warnings of transformers off, and afterwards as they were."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
