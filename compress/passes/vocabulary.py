"""Cutting the vocabulary: tokens that a corpus never uses leave the tokenizer, the embedding and the head.

After Abdaoui et al. 2020, "Load What You Need: Smaller Versions of Multilingual BERT", arXiv 2010.05609. What
stays is computed as before: the same rows, renumbered. A text whose tokens all stay is split as before;
any other is split into shorter tokens. A decoder can no longer say what was cut. Of rows with a ``target``
what is written counts as what is read; a model that hears reads none, and what it writes begins with a space.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from ...errors import CalibrationError, CheckpointError
from ...files.storage import read_json
from ...runtime.text.tokenizer import Tokenizer
from ..model.anatomy import Anatomy
from ..model.checkpoint.reader import CheckpointReader
from ..model.checkpoint.vocabulary_check import TOKENIZER
from ..model.weights import WeightSource
from ..pipeline.advance import Work
from ..pipeline.algorithm import ATTENDING, Fixed, whole_model
from ..pipeline.block import LayerStatus
from ..pipeline.block_shards import BlockWriter
from ..pipeline.model_pass import ModelPass, Workload
from ..pipeline.stage import Stage, StageResult
from ..text.calibration_audio import spoken
from ..text.corpus import plain, read_corpus
from ..text.tokenizer_cut import Cut, cut_tokenizer, named_ids, renumbered

# Other forms of the same vocabulary, which would now be wrong; tokenizer.json says it all.
_OTHER_FORMS = (
    *("vocab.json", "vocab.txt", "merges.txt", "added_tokens.json"),
    *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    *("source.spm", "target.spm", "target_vocab.json"),
)
_CONFIGS = ("generation_config.json", "tokenizer_config.json")
# Where a tokenizer of its own lies beside tokenizer.json, transformers' class of the family reads that alone:
# another one reads what is left.
_OWN_CLASS, _PLAIN_CLASS = "source.spm", {"tokenizer_class": "PreTrainedTokenizerFast"}
_SIZES = frozenset({"vocab_size", "decoder_vocab_size"})
_CHAT = tuple({"role": role, "content": "text"} for role in ("system", "user", "assistant"))
_TEXTS_AT_ONCE = 256


class Vocabulary(ModelPass):
    """Options of ``vocabulary``."""

    works_on: ClassVar[frozenset[str]] = ATTENDING
    text: ClassVar[str] = "without corpus"
    on_tables: ClassVar[bool] = True
    fixed: ClassVar[Mapping[str, Fixed]] = whole_model("one vocabulary serves the whole model") | {
        "samples": Fixed(None, "a token stays that occurs anywhere in the text")
    }
    samples: ClassVar[None] = None  # type: ignore[misc]  # not an option here
    corpus: str | None = Field(
        None,
        description="text whose tokens stay: a file, a directory or a demo corpus; null: calibration text",
    )
    size: int | None = Field(
        None, ge=1, description="largest number of tokens, the most frequent stay; null: all that occur"
    )

    @property
    def calibrated(self) -> bool:
        return self.corpus is None

    @property
    def last(self) -> bool:
        return True

    @property
    def label(self) -> str:
        return "vocabulary" if self.size is None else f"{self.size} tokens"

    def working_bytes(self, weights: int) -> int:
        """Embedding and head as they are read, which the plan counts for any model."""
        return 0

    def work(self, load: Workload) -> Work:
        """None: rows are copied."""
        return Work()

    def anatomy_after(self, anatomy: Anatomy) -> Anatomy:
        """With ``size`` tokens at most; how many of them occur is known when the text has been read."""
        return replace(anatomy, vocab_size=min(self.size or anatomy.vocab_size, anatomy.vocab_size))

    def apply(self, stage: Stage) -> StageResult:
        """Count tokens, cut the tokenizer, and copy the rows that stay."""
        source = stage.source
        if TOKENIZER not in source.reader.companions():
            raise CheckpointError(f"{source.reader.path} has no {TOKENIZER}: there is nothing to cut")
        tower = source.anatomy.tower
        if tower is not None and tower.pooling == "end" and tower.end is None:
            raise CheckpointError(
                f"{source.reader.path} says a wrong end token, and ids would change under it",
                why="eos_token_id is 2, by which transformers knows that the largest id ends a text",
                fix="set eos_token_id to that in a copy of config.json: the vectors stay the same",
            )
        tokenizer = Tokenizer.open(source.reader.path)
        counts = self._counts(stage, tokenizer)
        cut = self._cut(source, tokenizer, counts)
        parts, forms = _write(stage, cut)
        kept = np.zeros(len(counts), bool)
        kept[list(cut.kept)] = True
        covered = float(counts[kept].sum() / counts.sum())
        rows = source.anatomy.vocab_size
        label, detail = f"{len(cut.kept)} tokens", f"of {rows}; they are {covered:.2%} of the corpus"
        status = LayerStatus(
            source.anatomy.embedding, "vocabulary", label, "ok", 1 - covered, "tokens", detail
        )
        return StageResult(
            parts,
            [status],
            dict(source.schemes),
            forms,
            config=_config(source.reader.config, cut),
            details={"tokens": len(cut.kept), "of": rows, "covered": covered},
            files=_files(source.reader, cut),
        )

    def _cut(self, source: WeightSource, tokenizer: Tokenizer, counts: NDArray[np.int64]) -> Cut:
        """What is left of tokens that occur so often ``[vocab]``."""
        used = np.flatnonzero(counts)
        wanted = used[np.argsort(-counts[used], kind="stable")].tolist()
        special = sorted(_special_ids(source.reader, source.anatomy.vocab_size))
        cut = cut_tokenizer(read_json(source.reader.file(TOKENIZER)), wanted, special, self.size)
        if source.anatomy.hearing is not None:  # rows behind the last token may be times, which have no names
            times = range(tokenizer.vocab_size, source.anatomy.vocab_size)
            cut = replace(cut, kept=(*cut.kept, *times))
        _require_named(special, cut)
        return cut

    def _counts(self, stage: Stage, tokenizer: Tokenizer) -> NDArray[np.int64]:
        """How often each token id occurs in the corpus ``[vocab]``; once more for what a chat needs."""
        source = self.corpus if stage.calibration is None else self.corpus or stage.calibration.source
        if source is None:
            raise CalibrationError("vocabulary needs a text", fix="set corpus, or pass --text FILE")
        anatomy = stage.source.anatomy
        corpus = read_corpus(source, paired=anatomy.kind == "encoder_decoder")
        counts = np.zeros(max(tokenizer.vocab_size, anatomy.vocab_size), np.int64)
        texts = [*map(plain, corpus.documents), *(target for target in corpus.targets if target is not None)]
        if anatomy.hearing is not None:
            texts = [spoken(text) for text in texts]
        if tokenizer.chat_template is not None:
            texts += tokenizer.render_chats([_CHAT], add_generation_prompt=True)
        with stage.progress.task("counting tokens", len(texts)) as task:
            for start in range(0, len(texts), _TEXTS_AT_ONCE):
                some = texts[start : start + _TEXTS_AT_ONCE]
                for ids in tokenizer.encode_batch(some):
                    counts += np.bincount(np.asarray(ids, np.int64), minlength=len(counts))
                task.advance(len(some))
        return counts


def _require_named(special: Sequence[int], cut: Cut) -> None:
    """Refuse settings that name a row of the embedding without a token: it would get another's id."""
    missing = set(special).difference(cut.kept)
    if missing:
        raise CheckpointError(
            f"the settings name token {min(missing)}, which {TOKENIZER} has not: it cannot be renumbered",
            fix=f"take the model's own {TOKENIZER}, or correct config.json and {_CONFIGS[0]} in a copy",
        )


def _special_ids(reader: CheckpointReader, rows: int) -> set[int]:
    """Ids that the model's settings name."""
    places = (reader.config, _companion(reader, _CONFIGS[0]))
    return {one for settings in places for one in named_ids(settings) if 0 <= one < rows}


def _companion(reader: CheckpointReader, name: str) -> dict[str, Any]:
    content = read_json(reader.file(name)) if name in reader.companions() else {}
    return content if isinstance(content, dict) else {}


def _files(reader: CheckpointReader, cut: Cut) -> dict[str, Any]:
    """The companions that change: their content, or None for those that go."""
    present = reader.companions()
    files: dict[str, Any] = {TOKENIZER: cut.content}
    files |= {name: None for name in _OTHER_FORMS if name in present}
    for name in _CONFIGS:
        if name in present:
            settings = _companion(reader, name)
            files[name] = settings | renumbered(settings, cut.kept)
    if _OWN_CLASS in present and _CONFIGS[1] in files:
        files[_CONFIGS[1]] |= _PLAIN_CLASS
    return files


def _write(stage: Stage, cut: Cut) -> tuple[list[Any], dict[Any, str]]:
    """The blocks as they are, and everything outside them with the rows that stay."""
    source = stage.source
    writer = BlockWriter(source, source.schemes, stage.directory)
    parts = [
        writer.part(block, source.quantized(block, stage.device), {}, stage.masks.of(block, stage.device))
        for block in source.anatomy.blocks
    ]
    return [*parts, writer.outer(_rows(source, cut.kept))], writer.forms


def _config(config: Mapping[str, Any], cut: Cut) -> dict[str, Any]:
    """The entries of ``config.json`` that change."""
    sizes = dict.fromkeys(_SIZES & config.keys() | {"vocab_size"}, len(cut.kept))
    return renumbered(config, cut.kept) | sizes


def _rows(source: WeightSource, kept: Sequence[int]) -> dict[str, Tensor]:
    """Every tensor outside the blocks that has a row, or a column, for each token, with those of ``kept``."""
    anatomy, tokens = source.anatomy, list(kept)
    inside = tuple(f"{block.prefix}." for block in anatomy.blocks)
    others = (*inside, *(f"{name}." for name in _of_other_things(anatomy)))
    found = {
        name: source.tensor(name)[tokens]
        for name, shape in source.shapes.items()
        if shape[0] == anatomy.vocab_size and not name.startswith(others)
    }
    if anatomy.head_bias is not None:
        found[anatomy.head_bias] = source.tensor(anatomy.head_bias)[:, tokens]
    return found


def _of_other_things(anatomy: Anatomy) -> Iterator[str]:
    """Modules outside the blocks whose rows are no tokens, though there may be as many."""
    norms = [anatomy.embedding_norm, anatomy.encoder_norm, anatomy.final_norm]
    names = [anatomy.position_embedding, anatomy.token_type_embedding, *anatomy.position_biases]
    if anatomy.decoder_entry is not None:
        norms.append(anatomy.decoder_entry.embedding_norm)
        names.append(anatomy.decoder_entry.position_embedding)
    if anatomy.relative is not None:
        names.append(anatomy.relative.table)
    names += [] if anatomy.hearing is None else anatomy.hearing.convolutions
    names += [norm.name for norm in norms if norm is not None]
    yield from (name for name in names if name is not None)


PASS = Vocabulary
