"""The pico models that are compressed, with random weights of a fixed seed, and the texts: made once in a
folder, so that every state of the code reads the same bytes.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .pico_families import DECODER, EXTRACTOR, MODELS, PROCESSOR
from .pico_inputs import LABELS, sentences, write_images, write_sounds, write_texts
from .pico_kinds import AUTO, ENCODERS, HEARS, POOLERLESS, READ_IMAGES, TOWERS, kind_of
from .pico_tokenizers import save_tokenizer


def make_subjects(folder: Path, names: Iterable[str]) -> None:
    """The named models in ``folder/models`` and all texts in ``folder/text``, unless they are there."""
    write_texts(folder / "text")
    names = list(names)
    if any(MODELS[name][0] in READ_IMAGES for name in names):
        write_images(folder / "images")
    if any(MODELS[name][0] in HEARS for name in names):
        write_sounds(folder / "sounds")
    for name in names:
        made = folder / "models" / f"{name}.made"
        if not made.exists():
            family, changes, form = MODELS[name]
            save_pico(folder / "models" / name, family, changes, **form)
            made.touch()


def save_pico(
    folder: Path,
    family: str,
    changes: dict[str, Any],
    *,
    dtype: str = "float32",
    shard: str | None = None,
    labels: bool = False,
    by_token: bool = False,
    pooling: bool = False,
    tokenizer: str | None = None,
) -> None:
    """Save a model of ``family`` with its tokenizer, by default that of its kind; ``changes`` go to its
    config. One with ``labels`` is a classifier of texts, or ``by_token``.
    """
    import torch
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {}
    if family in READ_IMAGES:
        (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR), encoding="utf-8")
    else:
        settings["vocab_size"] = save_tokenizer(folder, tokenizer or kind_of(family), sentences(50, seed=0))
    if family in HEARS:
        (folder / "preprocessor_config.json").write_text(json.dumps(EXTRACTOR), encoding="utf-8")
    settings |= DECODER | changes if kind_of(family) == "decoder" else changes
    if family in ("falcon", "bloom", "mpt"):
        del settings["head_dim"]  # their configs derive it
    if labels:
        settings["id2label"] = dict(enumerate(LABELS))
    head = f"AutoModelFor{'Token' if by_token else 'Sequence'}Classification"
    plain = "AutoModelForSpeechSeq2Seq" if family in HEARS else AUTO[kind_of(family)]
    auto: Any = getattr(transformers, head if labels else plain)
    bare = family in (*ENCODERS, "vit") and family not in POOLERLESS and not labels
    options = {"add_pooling_layer": False} if bare else {}
    config = transformers.AutoConfig.for_model(family, **settings)
    if family in TOWERS:
        model = getattr(transformers, TOWERS[family])(config)
    else:
        model = auto.from_config(config, **options)
    _randomise(model)
    model.to(getattr(torch, dtype)).save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
    if pooling:
        _pool(folder)


def _randomise(model: Any) -> None:
    import torch

    generator = torch.Generator().manual_seed(0)
    around_zero = model.config.model_type.startswith(("gemma", "nemotron"))  # how norms are stored
    if model.config.model_type == "mt5":  # whose head is its own
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.shared.weight))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim >= 2:
                parameter.copy_(noise * parameter.shape[-1] ** -0.5)
            elif name.endswith("bias"):
                parameter.copy_(0.1 * noise)
            else:
                parameter.copy_(0.2 * noise + (0 if around_zero else 1))
    if getattr(model.config, "tie_word_embeddings", False):
        model.tie_weights()


def _pool(folder: Path) -> None:
    """The files by which sentence-transformers says how an encoder's states become an embedding."""
    stages = [{"type": "x.Transformer", "path": ""}, {"type": "x.Pooling", "path": "1_Pooling"}]
    (folder / "modules.json").write_text(json.dumps(stages), encoding="utf-8")
    (folder / "1_Pooling").mkdir(exist_ok=True)
    mode = json.dumps({"pooling_mode_mean_tokens": True})
    (folder / "1_Pooling" / "config.json").write_text(mode, encoding="utf-8")
