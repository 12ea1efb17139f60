"""What clients are asked of a model, and what we answer, by torch from the checkpoint, each row alone."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ....compress.model.hearing.feature_extractor import log_mel_of
from ....compress.model.pooling import pooling_of
from ....compress.model.torch_model import tower_vectors
from ....compress.text.spectra import spectra
from ....files.storage import read_json
from ....runtime.text.tokenizer import Tokenizer
from ..same_bytes.pico_inputs import WORDS
from .kinds import (
    DECODE,
    ENCODER,
    IMAGE_TOWER,
    IMAGES,
    READ_AND_WRITE,
    SPEECH,
    TEXT_TO_TEXT,
    TEXT_TOWER,
    TOWERS,
)

_LOUD = 0.1
# Spaces, accents, digits, line ends, special tokens, and what has no token of its own.
WRITTEN = (
    *("the river ran under old bridges.", " a", "a  b   c\td", "x=1;y=22; don't 4,5 naïve\r\n", "", "🙂 ok"),
    "héllo  wörld\n\n123456 <|im_start|>user\nhi<|im_end|> é日本",
    "<start_of_turn>user\nhi<end_of_turn>\n<start_of_turn> model",
)
_LAST = 3  # the end of a text, where CLIP's tower reads it


def question(kind: str, checkpoint: Path, lengths: Sequence[int], new_tokens: int) -> dict[str, Any]:
    """``rows`` of tokens, of pixels or of samples, and what has to be known of the model to ask them."""
    generator, config = random.Random(5), read_json(checkpoint / "config.json")
    task: dict[str, Any] = {"kind": kind, "pad": 0, "new_tokens": new_tokens}
    task["decodes"] = kind in (*DECODE, *READ_AND_WRITE)
    ids = range(5, min(100, config.get("vocab_size", 100)))
    task["rows"] = [[generator.choice(ids) for _ in range(length)] for length in lengths]
    if kind in READ_AND_WRITE:
        task["start"] = config["decoder_start_token_id"]
    if kind in (IMAGES, IMAGE_TOWER):
        side = config["image_size"]
        task["pixels"] = [3, side, side]
        numbers = np.random.default_rng(5).normal(size=(len(lengths), 3 * side * side))
        task["rows"] = numbers.astype(np.float32).round(4).tolist()
    if kind == TEXT_TOWER:
        task["rows"] = [[*row[:-1], _LAST] for row in task["rows"]]
    if kind == SPEECH:
        how = log_mel_of(checkpoint)
        assert how is not None
        noise = np.random.default_rng(5).normal(0, _LOUD, how.samples)
        task["samples"] = how.samples
        task["rows"] = [noise[: how.samples * length // max(lengths)].round(4).tolist() for length in lengths]
    return task


def answers(model: Any, task: dict[str, Any], checkpoint: Path) -> dict[str, Any]:
    """``values`` and, of what writes, greedy ``tokens``: of each row the logits after it, or the mean of its
    states, of a tagger of its logits, or the vector of a tower.
    """
    with torch.no_grad():
        if task["decodes"]:
            return _continued(model, task, checkpoint)
        return {"values": [_embedded(model, task, row) for row in task["rows"]]}


def text_answers(kind: str, model: Any, checkpoint: Path, lengths: Sequence[int]) -> dict[str, Any]:
    """Of an encoder ``texts`` and the vectors ``embedded`` of them; of a decoder ``contexts`` with
    ``continuations`` and how likely these are, ``scored``: the sum of the logarithms over their tokens; and
    of all that read text the ``ids`` of the texts ``written``.
    """
    generator = random.Random(6)
    if not _reads(checkpoint) or kind not in (ENCODER, TEXT_TO_TEXT, *DECODE):
        return {}
    tokenizer = Tokenizer.open(checkpoint)
    texts = [" ".join(generator.choices(WORDS, k=length)) for length in lengths]
    read = {"written": WRITTEN, "ids": [tokenizer.encode(text) for text in WRITTEN]}
    if kind == ENCODER:
        pooling, found = pooling_of(checkpoint), []
        for text in texts:
            ids = torch.tensor([tokenizer.encode(text)])
            with torch.no_grad():
                found.append(pooling.apply(model(input_ids=ids)[0], torch.ones(ids.shape))[0].tolist())
        return read | {"texts": texts, "embedded": {"values": found}}
    if kind in DECODE:
        more = [" " + " ".join(generator.choices(WORDS, k=4)) for _ in texts]
        pairs = [
            (tokenizer.encode(one), tokenizer.encode(one + then))
            for one, then in zip(texts, more, strict=True)
        ]
        scores = [[_likelihood(model, len(begin), whole)] for begin, whole in pairs]
        return read | {"contexts": texts, "continuations": more, "scored": {"values": scores}}
    return read


def _reads(checkpoint: Path) -> bool:
    return (checkpoint / "tokenizer.json").is_file()


def _likelihood(model: Any, begin: int, ids: list[int]) -> float:
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
    return float(sum(logits[place - 1, ids[place]] for place in range(begin, len(ids))))


def _embedded(model: Any, task: dict[str, Any], row: list[float]) -> list[float]:
    if "pixels" in task:
        found = model(pixel_values=torch.tensor(row).reshape(1, *task["pixels"]))
    else:
        found = model(input_ids=torch.tensor([row]))
    vectors: torch.Tensor = tower_vectors(found) if task["kind"] in TOWERS else found[0].mean(1)
    return vectors[0].tolist()


def _continued(model: Any, task: dict[str, Any], checkpoint: Path) -> dict[str, Any]:
    values, tokens = [], []
    for row in task["rows"]:
        read = _read(task, row, checkpoint)
        begin = [task["start"]] if read else row
        ids = list(begin)
        for step in range(task["new_tokens"]):
            name = "decoder_input_ids" if read else "input_ids"
            logits = model(**read, **{name: torch.tensor([ids])}, use_cache=False).logits[0, -1]
            if step == 0:
                values.append(logits.tolist())
            ids.append(int(logits.argmax()))
        tokens.append(ids[len(begin) :])
    return {"values": values, "tokens": tokens}


def _read(task: dict[str, Any], row: list[Any], checkpoint: Path) -> dict[str, Any]:
    """What an encoder reads first; empty where there is none."""
    if task["kind"] == SPEECH:
        how = log_mel_of(checkpoint)
        assert how is not None
        return {"input_features": spectra(np.array([row], np.float32), how)}
    return {"input_ids": torch.tensor([row])} if "start" in task else {}
