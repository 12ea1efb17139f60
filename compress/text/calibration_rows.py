"""Which rows of a text a model is calibrated with: windows of its whole stream, or texts of their own."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from ...errors import CalibrationError, InputError
from ...runtime.text.tokenizer import Tokenizer
from .corpus import Corpus, labelled_texts, paragraphs, plain
from .jsonl_rows import Conversation, Document
from .token_batch import SEPARATOR, Row, padded_row, starts_with_bos, token_stream, windows

Kind = Literal["decoder", "encoder", "encoder_decoder"]
Chat = Literal["auto", "always", "never"]
_CHATS_AT_ONCE = 64


class Drawing(NamedTuple):
    """How many rows of how many tokens are drawn, and by what."""

    samples: int
    length: int
    generator: np.random.Generator


class Drawn(NamedTuple):
    """Rows of a text; how many of its texts were longer than they, and whether the chat template had a part
    in them."""

    rows: list[Row]
    truncated: int
    rendered: bool


def drawn_rows(
    kind: Kind,
    corpus: Corpus,
    tokenizer: Tokenizer,
    how: Drawing,
    *,
    chat: Chat,
    labels: Sequence[str],
    filled: int | None,
) -> Drawn:
    """The rows for a model of the ``kind``: of a decoder's ``chat``; of an encoder's ``labels``, each
    ``filled`` up to so many tokens where it reads padding.
    """
    if kind == "decoder":
        return _decoder_rows(corpus, tokenizer, *how, chat)
    paired = kind == "encoder_decoder"
    return _encoder_rows(corpus, tokenizer, *how, paired=paired, labels=labels, filled=filled)


def _decoder_rows(
    corpus: Corpus,
    tokenizer: Tokenizer,
    samples: int,
    length: int,
    generator: np.random.Generator,
    chat: Chat,
) -> Drawn:
    """So many windows of ``length`` tokens ``[length]``, drawn without replacement."""
    texts, rendered = _texts(corpus.distinct(), tokenizer, chat)
    stream = token_stream(tokenizer, texts, separator="")
    cut = windows(stream, length, bos=tokenizer.bos_id if starts_with_bos(tokenizer) else None)
    if len(cut) < samples:
        raise CalibrationError(
            f"{corpus.source} has {len(stream)} tokens, {samples} × {length} need {samples * length}",
            why=f"{len(texts)} distinct documents were read, {corpus.duplicates} repetitions left out",
            fix=_what_fits(len(stream), len(cut), samples),
        )
    return Drawn(list(map(Row, cut[generator.permutation(len(cut))[:samples]])), 0, rendered)


def _what_fits(tokens: int, fitting: int, samples: int) -> str:
    choices = [f"--samples {fitting}"] if fitting else []
    if tokens // samples >= 16:
        choices.append(f"--length {tokens // samples}")
    return (
        f"{' or '.join(choices)} would fit; or give more text"
        if choices
        else "give more text, or --text wikipedia"
    )


def _texts(documents: list[Document], tokenizer: Tokenizer, chat: Chat) -> tuple[list[str], bool]:
    """The documents as they follow each other in the stream, and whether the chat template had a part."""
    if chat == "always":
        documents = [_as_conversation(document) for document in documents]
    elif chat == "never":
        documents = [plain(document) for document in documents]
    conversations = [document for document in documents if not isinstance(document, str)]
    if conversations and tokenizer.chat_template is None:
        raise InputError(
            f"{len(conversations)} documents are conversations, but the model has no chat template",
            fix="use their bare text with --chat never",
        )
    rendered: list[str] = []
    for start in range(0, len(conversations), _CHATS_AT_ONCE):
        some = conversations[start : start + _CHATS_AT_ONCE]
        rendered += tokenizer.render_chats(some, add_generation_prompt=False)
    chats = iter(rendered)
    texts = [doc + SEPARATOR if isinstance(doc, str) else next(chats) for doc in documents]
    return texts, bool(conversations)


def _as_conversation(document: Document) -> Conversation:
    return ({"role": "user", "content": document},) if isinstance(document, str) else document


def pairs(corpus: Corpus) -> dict[str, str]:
    """Distinct texts, each with what is written of it; empty where the corpus has no targets."""
    if None in corpus.targets:
        raise CalibrationError(
            f"{corpus.targets.count(None)} of {len(corpus.targets)} rows of {corpus.source} have no target",
            fix="give each what is to be written of it, under target or output, or none of them",
        )
    known = zip(corpus.documents, corpus.targets, strict=False)  # of equal texts the first counts
    return {plain(document): target for document, target in reversed([*known]) if target is not None}


def _encoder_rows(
    corpus: Corpus,
    tokenizer: Tokenizer,
    samples: int,
    length: int,
    generator: np.random.Generator,
    *,
    paired: bool,
    labels: Sequence[str],
    filled: int | None,
) -> Drawn:
    """So many texts, drawn without replacement, of at most ``length`` tokens, the longest first; with what is
    written of each where they are ``paired``, or else its place among ``labels``. Those of a model that reads
    padding are ``filled`` up to so many tokens.
    """
    answers = pairs(corpus) if paired else {}
    texts = dict.fromkeys(answers) or _labelled(corpus, labels)
    if len(texts) < samples:
        raise CalibrationError(
            f"{corpus.source} has {len(texts)} distinct texts, {samples} samples were asked for",
            fix=f"--samples {len(texts)} would fit; or give more text",
        )
    named = list(texts)
    chosen = [named[index] for index in generator.permutation(len(named))[:samples]]
    whole = tokenizer.encode_batch(chosen)
    cut = tokenizer.encode_batch(chosen, max_length=length)
    targets = [answers[text] for text in chosen] if answers else []
    written = tokenizer.encode_batch(targets, max_length=length) if targets else []
    answer = {text: np.asarray(ids, np.int64) for text, ids in zip(chosen, written, strict=False)}
    rows = [
        Row(np.asarray(ids, np.int64), texts[text], answer.get(text))
        for ids, text in zip(cut, chosen, strict=True)
    ]
    # Rows of like length share a batch, so that little of it is padding.
    rows.sort(key=lambda row: len(row.ids), reverse=True)
    if filled is not None:
        rows = [padded_row(row, filled, tokenizer.pad_id or 0) for row in rows]
    return Drawn(rows, sum(len(ids) > length for ids in whole), rendered=False)


def _labelled(corpus: Corpus, labels: Sequence[str]) -> dict[str, int | None]:
    """Distinct texts, each with its label's place where the corpus has labels that the model knows."""
    if labels and corpus.labels:
        known = labelled_texts(corpus, labels)
        return dict(reversed(known))  # of equal texts the first counts
    return dict.fromkeys(part for document in corpus.distinct() for part in paragraphs(plain(document)))
