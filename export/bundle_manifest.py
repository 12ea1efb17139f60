"""``manifest.json`` of an export: what it holds, what it was made from and how it was proven; the hash of
every file is added when all are there.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

from .. import __version__
from ..compress.model.anatomy import Anatomy
from ..compress.model.block_anatomy import Attention
from ..compress.model.generation_tokens import GenerationTokens
from ..compress.model.hearing.feature_extractor import require_log_mel
from ..compress.model.hearing.hearing import Hearing
from ..compress.model.hearing.speech_prompt import speech_prompt
from ..runtime.bundle.directory import BUNDLE_SCHEMA, SAVED_SCHEMA
from ..runtime.bundle.graph_sections import DecoderSection
from ..runtime.bundle.typed_json import read
from .format import OutputKind
from .graph.attention.cache_io import CODES, FLOAT, cache_label
from .graph.states import states_of
from .job import ExportJob

FLOAT_SCHEME = "fp32"


def manifest_of(job: ExportJob, sections: dict[str, Any], parity: dict[str, Any]) -> dict[str, Any]:
    """Everything but ``files``: ``sections`` come from the format, ``parity`` from the proof."""
    made = job.made
    weights = {"params": parameters(job), **sections["weights"]}
    return {
        "schema": BUNDLE_SCHEMA,
        "tool": {"name": "edgepress", "version": __version__},
        "kind": job.source.anatomy.kind,
        "name": job.name,
        "described": job.described,
        "scheme": scheme_label(job),
        "source": {
            "checkpoint_sha256": job.source.reader.fingerprint(),
            "model": made.get("source"),
            "recipe": made.get("recipe"),
            "calibration": made.get("calibration"),
            "opens_in": made.get("opens_in"),
            "embedding": None if job.source.embedding_scheme is None else job.source.embedding_scheme.name,
            "head": None if job.source.head_scheme is None else job.source.head_scheme.name,
        },
        "layers": made.get("layers", []),
        "steps": made.get("steps", []),
        "parity": parity,
        **sections,
        "weights": weights,
    }


def saved_manifest(
    job: ExportJob, sections: dict[str, Any], parity: dict[str, Any], stored: int, command: str
) -> dict[str, Any]:
    """The same of a model that another runtime loads: its files have ``stored`` bytes."""
    return {
        "schema": SAVED_SCHEMA,
        "tool": {"name": "edgepress", "version": __version__},
        "kind": job.source.anatomy.kind,
        "name": job.name,
        "described": job.described,
        "scheme": scheme_label(job),
        "command": command,
        "weights": {"params": parameters(job), "bytes": stored},
        "parity": parity,
        **sections,
    }


def unproven(kind: OutputKind) -> dict[str, Any]:
    """``parity`` of an export that was not checked."""
    missing = {"bundle": "this graph was not compared with its model", "saved": "this file was not read back"}
    return {"status": "skipped", "warning": f"exported with --no-validate: {missing[kind]}"}


def scheme_label(job: ExportJob) -> str:
    """How tables name the weights: ``W4A16-g64 gptq``, or ``fp32``."""
    if job.as_float:
        return FLOAT_SCHEME
    label = job.source.manifest.get("scheme")
    if not isinstance(label, str):
        label = " + ".join(sorted({scheme.name for scheme in job.source.schemes.values()}))
    if job.source.kv_scheme is not None:  # the checkpoint's cache: the graph's need not be that
        label = label.removesuffix(f"{job.source.kv_scheme.name} kv_cache").removesuffix(" + ")
    return (label or FLOAT_SCHEME) + cache_label(job.source, job.kv_dtype)


def parameters(job: ExportJob) -> int:
    """Weights and biases of the exported parts, a tied head counted once."""
    anatomy, shapes = job.source.anatomy, job.source.shapes
    modules = {anatomy.embedding, anatomy.position_embedding, anatomy.token_type_embedding}
    modules |= {None if anatomy.tied else anatomy.head}
    patches = anatomy.patches
    tensors = [] if patches is None else [patches.positions, patches.class_token]
    for block in anatomy.blocks:
        tensors += [block.attention_scale, block.mlp_scale]
        tensors += [block.mixer.sinks] if isinstance(block.mixer, Attention) else block.mixer.own_tensors()
    tensors += anatomy.buffers() - {anatomy.head_bias}
    modules |= set() if anatomy.classifier is None else set(anatomy.classifier.modules())
    modules |= {*anatomy.gates(), *anatomy.position_biases}
    modules |= set() if anatomy.hearing is None else set(anatomy.hearing.convolutions)
    norms = [anatomy.embedding_norm, anatomy.encoder_norm, anatomy.final_norm]
    if anatomy.decoder_entry is not None:
        modules.add(anatomy.decoder_entry.position_embedding)
        norms.append(anatomy.decoder_entry.embedding_norm)
    norms += [] if anatomy.classifier is None else [anatomy.classifier.norm]
    for block in anatomy.blocks:
        modules |= {linear.name for linear in block.linears()}
        norms += block.norms()
    modules |= {norm.name for norm in norms if norm is not None}
    names = [f"{module}.{part}" for module in modules - {None} for part in ("weight", "bias")]
    names += [name for name in tensors if name is not None]
    names += [] if anatomy.tower is None else anatomy.tower.tensors(shapes)
    names += [] if anatomy.head_bias is None else [anatomy.head_bias]
    return sum(prod(shapes[name]) for name in names if name in shapes)


def decoder_section(job: ExportJob) -> dict[str, Any]:
    """Shapes, type and cost of the cache, limits and special tokens of a decoder."""
    anatomy, tokens = job.source.anatomy, GenerationTokens.of(job.source)
    section = {
        "layers": [{"kv_heads": part.kv_heads, "head_dim": part.head_dim} for part in anatomy.attentions()],
        **_states(anatomy),
        **_cache(job),
        "context_length": anatomy.max_positions,
        "vocab_size": anatomy.vocab_size,
        "bos_token_id": tokens.one("bos_token_id"),
        "eos_token_ids": tokens.ids("eos_token_id"),
        "pad_token_id": tokens.one("pad_token_id"),
    }
    per_token = read(DecoderSection, section).kv_bytes_per_token
    return section | {"kv_bytes_per_token": per_token}


def _cache(job: ExportJob) -> dict[str, Any]:
    """Type and scheme of the cache."""
    cache, scheme = FLOAT if job.as_float else job.kv_dtype, job.source.kv_scheme
    return {"kv_dtype": cache, "kv_scheme": None if scheme is None or cache not in CODES else scheme.name}


def _states(anatomy: Anatomy) -> dict[str, Any]:
    """Of a model that has blocks without attention: which blocks have keys and values, and all states."""
    if anatomy.attends:
        return {}
    found = [one for block in anatomy.blocks for one in states_of(block)]
    return {
        "attending": [block.index for block in anatomy.blocks if block.attends],
        "states": [{"name": name, "shape": shape} for name, shape in found],
    }


def encoder_decoder_section(job: ExportJob) -> dict[str, Any]:
    """Shapes of the cache, limits and special tokens of an encoder–decoder."""
    anatomy, tokens = job.source.anatomy, GenerationTokens.of(job.source)
    layers = [
        {"kv_heads": block.attention.kv_heads, "head_dim": block.attention.head_dim}
        for block in anatomy.stacks()[1].blocks
    ]
    return {
        "layers": layers,
        **_cache(job),
        "max_length": anatomy.max_positions if anatomy.hearing is None else anatomy.hearing.tokens,
        "context_length": anatomy.max_positions,
        "vocab_size": anatomy.vocab_size,
        "start_token_id": tokens.start(),
        "first_token_id": tokens.one("forced_bos_token_id"),
        "suppressed_ids": tokens.never(),
        "eos_token_ids": tokens.ids("eos_token_id"),
        "pad_token_id": tokens.one("pad_token_id"),
        **({} if anatomy.hearing is None else _sound_section(job, anatomy.hearing)),
    }


def _sound_section(job: ExportJob, hearing: Hearing) -> dict[str, Any]:
    """What becomes of a sound, and what stands in front of an answer."""
    how = require_log_mel(hearing, job.path)
    prompt = speech_prompt(job.path, job.source.reader.config, job.source.anatomy.vocab_size)
    return {
        "sound": {
            "rate": how.rate,
            "samples": how.samples,
            "languages": dict(prompt.languages),
            "tasks": dict(prompt.tasks),
        },
        "prompt": [list(place) for place in prompt.places],
        "first_token_id": None,
        "suppressed_ids": list(prompt.never),
        "first_suppressed_ids": list(prompt.never_first),
    }


def encoder_section(job: ExportJob, inputs: Sequence[str]) -> dict[str, Any]:
    """Pooling, prompts, labels, limits and inputs of an encoder."""
    anatomy, pooling = job.source.anatomy, job.pooling
    head = anatomy.classifier
    labels = (
        {}
        if head is None
        else {"labels": list(head.labels), "labelled": head.labelled, "several": head.several}
    )
    wanted = pooling.max_length if pooling is not None else None
    return {
        "pooling": pooling.mode if pooling is not None else None,
        "normalize": pooling.normalize if pooling is not None else False,
        "max_length": min(wanted or anatomy.max_positions, anatomy.max_positions),
        "hidden_size": anatomy.hidden_size,
        "inputs": list(inputs),
        **job.prompts.section(),
        **labels,
        **({} if job.images is None else {"image": job.images.as_dict()}),
        **_tower_section(job),
    }


def _tower_section(job: ExportJob) -> dict[str, Any]:
    """Of one of two encoders the size of its vectors, and whether texts are filled up."""
    tower = job.source.anatomy.tower
    if tower is None:
        return {}
    name = f"{tower.projection}.weight"
    size = job.source.anatomy.hidden_size if tower.projection is None else job.source.shapes[name][0]
    return {"embedding_size": size, "filled": tower.filled}
