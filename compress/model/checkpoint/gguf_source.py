"""A GGUF file as a plain model directory: dequantized by transformers' own reader, saved as fp32 safetensors.

The directory is what everything else reads, so nothing further on knows about GGUF. It is staged and
renamed whole.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .... import plugins
from ....disk import disk_full_is_typed, require_disk
from ....errors import CheckpointError, OutputExists, RefusedByPolicy, UnknownName, require
from ....foreign import foreign_errors_are_typed
from ....runtime.text.child_process import ChildProcess, Limits
from ....staging import Staging
from ....storage import read_json
from ....terminal import Progress, Silent
from ..anatomy import Anatomy, Check
from ..family import FAMILIES, anatomy_of
from .gguf_header import GgufHeader, read_gguf_header
from .gguf_settings import factors, positions
from .gguf_words import WAYS
from .tensor_check import refuse_non_finite

# What the tokenizer of a GGUF may take to build, and more with the bytes of its settings.
_SECONDS = 60.0
_MEMORY = 2 << 30
_FILE = 4 << 20
_SAFETENSORS = "take the model's safetensors checkpoint"

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

    Raises:
        CheckpointError: the file is damaged, incomplete, or not what transformers reads.
        UnknownName: a model of a family that edgepress does not know, or a way to cut text into words.
        RefusedByPolicy: its tokenizer takes more time or memory than a tokenizer may.
        MissingDependency: gguf or accelerate is not installed.
        OutOfResource: the disk has no room for the fp32 weights.
    """
    if (target / "config.json").is_file():
        return target
    header = read_gguf_header(path)
    if header.architecture not in (known := plugins.names(FAMILIES)):
        # Without the nearest: llama.cpp's names are others, and a similar one is another network.
        raise UnknownName("model family", header.architecture, known, fix=_SAFETENSORS)
    if header.words is not None and header.words not in WAYS:
        raise UnknownName("way to cut text into words", header.words, list(WAYS))
    require("accelerate", "compress")
    require_disk(target, 4 * sum(header.weights.values()) + (64 << 20))
    try:
        _write(path, header, target, edit, check, progress or Silent())
    except OutputExists:
        if not (target / "config.json").is_file():  # else another process has written it in the meantime
            raise
    return target


def _write(
    path: Path, header: GgufHeader, target: Path, edit: Edit | None, check: Check | None, progress: Progress
) -> None:
    with progress.task(f"dequantizing {path.name}", 3) as task, Staging(target, wait=True) as stage:
        config = _config(path, header)
        anatomy = _anatomy(config, path, header.architecture)
        factors.check(anatomy, path, header.settings)
        if check is not None:
            check(anatomy)
        stage.result.mkdir()
        _save_tokenizer(path, header, stage.result)
        model = _load(path, config, header)
        task.advance(detail="read")
        tensors = dict(model.state_dict())
        if edit is not None:
            with torch.no_grad():
                edit(model.config.to_dict(), tensors)
        refuse_non_finite(tensors)
        positions.check(_anatomy_of(model.config.to_dict(), tensors), path, header.positions)
        task.advance(detail="checked")
        with disk_full_is_typed(target), _quiet_transformers():
            model.save_pretrained(stage.result)
        stage.publish()
        task.advance(detail="written")


def _save_tokenizer(path: Path, header: GgufHeader, target: Path) -> None:
    """Let a child process work it out of tokens and merges, which may take any time and memory."""
    size = header.settings_bytes
    limits = Limits(_SECONDS + 3e-5 * size, _MEMORY + 128 * size, _FILE + 16 * size)

    def refused(why: str) -> RefusedByPolicy:
        return RefusedByPolicy(
            f"the tokenizer of {path} was stopped",
            why=why,
            fix="do not trust this file: take the model from a source that you trust",
        )

    with (
        tempfile.TemporaryDirectory() as empty,
        foreign_errors_are_typed(lambda why: _unreadable(path, header.architecture, why)),
        ChildProcess(Path(__file__).with_name("gguf_tokenizer_worker.py"), refused=refused) as child,
    ):
        child.ask({"model": empty, "file": str(path.absolute()), "target": str(target)}, limits)
    if header.words is not None:
        # transformers cuts as GPT-2 does, whatever the file says.
        file = target / "tokenizer.json"
        file.write_text(
            json.dumps({**read_json(file), "pre_tokenizer": WAYS[header.words]}, ensure_ascii=False),
            encoding="utf-8",
        )


def _config(path: Path, header: GgufHeader) -> Any:
    from transformers import AutoConfig

    with _reading(path, header.architecture) as empty:
        config = AutoConfig.from_pretrained(empty, gguf_file=str(path.absolute()))
    positions.complete(config, path, header.positions)
    return config


def _anatomy(config: Any, path: Path, architecture: str) -> Anatomy:
    """That of transformers' model of ``config``, of which no weight is there yet."""
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    with _reading(path, architecture), init_empty_weights(), no_init_weights():
        tensors = AutoModelForCausalLM.from_config(config).state_dict()
    return _anatomy_of(config.to_dict(), tensors)


def _anatomy_of(config: dict[str, Any], tensors: Mapping[str, Tensor]) -> Anatomy:
    return anatomy_of(config, {name: tuple(tensor.shape) for name, tensor in tensors.items()})


def _load(path: Path, config: Any, header: GgufHeader) -> Any:
    from transformers import AutoModelForCausalLM, GgufConfig

    with _reading(path, header.architecture) as empty:
        model, report = AutoModelForCausalLM.from_pretrained(
            empty,
            config=config,
            gguf_file=str(path.absolute()),
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
            output_loading_info=True,
        )
    _check_complete(path, report)
    _check_used(path, header, model)
    _forget_quantization(model)
    return model.eval()


@contextmanager
def _reading(path: Path, architecture: str) -> Iterator[str]:
    """Typed errors for transformers' own, and nothing that it prints; gives the directory that it takes for
    the model's: an empty one, so that nothing which lies beside the file is read.
    """
    with (
        tempfile.TemporaryDirectory() as empty,
        _quiet_transformers(),
        redirect_stderr(io.StringIO()),
        foreign_errors_are_typed(lambda why: _unreadable(path, architecture, why)),
    ):
        yield empty


def _unreadable(path: Path, architecture: str, why: str) -> CheckpointError:
    return CheckpointError(
        f"transformers cannot read {path} (architecture {architecture!r})",
        why=why,
        fix=f"check the file against its publisher's hash, or {_SAFETENSORS}",
    )


def _check_complete(path: Path, report: dict[str, Any]) -> None:
    # transformers fills a missing weight with random numbers and only warns.
    for kind in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if names := sorted(map(str, report.get(kind) or ())):
            raise CheckpointError(
                f"{path} does not hold the model that it describes: {kind.replace('_', ' ')} {names[0]}",
                why=f"{len(names)} such tensors",
                fix=_SAFETENSORS,
            )


def _check_used(path: Path, header: GgufHeader, model: Any) -> None:
    # transformers passes over tensors that its model of the family has no place for, biases for example.
    held = sum(header.weights.values()) - header.positions.divisors
    left = held - sum(parameter.numel() for parameter in model.parameters())
    head = model.get_output_embeddings().weight
    once_more = head is model.get_input_embeddings().weight and left == head.numel()
    if left and not once_more:
        raise CheckpointError(
            f"{path} holds {held:,} numbers, {left:,} more than transformers' {header.architecture} reads",
            why="the model would answer without them",
            fix=_SAFETENSORS,
        )


def _forget_quantization(model: Any) -> None:
    # save_pretrained refuses a model that remembers its quantizer, though its weights are plain by now.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False


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
