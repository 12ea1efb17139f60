"""A tokenizer of pieces and single bytes, as SentencePiece has them (Llama 2, Mistral, Gemma), in llama.cpp's
form: each piece has a score, and of all neighbours that together are a piece those with the highest are
joined first.

A ``tokenizer.json`` lists pairs instead, in the order in which they are joined. The two give the same tokens
where every pair that together is a piece is listed, and those of one piece stand together: then the score
follows from the place in the list. Lists that were made of SentencePiece's scores are of that form.

Kudo and Richardson, SentencePiece: A simple and language independent subword tokenizer and detokenizer for
Neural Text Processing, 2018, arXiv 1808.06226.

A WordPiece tokenizer (BERT) in llama.cpp's form: what begins a word has ▁ before it, and what goes on with
one has not.

llama.cpp cuts text into words as BERT does: by spaces, punctuation and Chinese characters. Schuster and
Nakajima, Japanese and Korean Voice Search, 2012; Devlin et al., BERT, 2018, arXiv 1810.04805.

A unigram tokenizer (XLM-R, T5) in llama.cpp's form: each piece has a score, and of all ways to cut a text
that with the largest sum is taken. Characters are replaced by the table that SentencePiece compiled.

Kudo, Subword Regularization, 2018, arXiv 1804.10959.
"""

from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...compress.model.gguf.architecture import WAY_OUT
from ...errors import InputError
from ...runtime.text.tokenizer import Tokenizer

SPACE = "▁"
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
# The scores of what no pair is joined to: no number of a list of pairs.
_NEVER = -1e9
_REPLACED = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_PREPENDED = {"type": "Prepend", "prepend": SPACE}
_BY_SPACES = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
_UNCUT = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "never", "split": False}
Pair = tuple[str, str]
_INSIDE = "##"  # before what goes on with a word
_LOWERCASE, _STRIP_ACCENTS = (f"tokenizer.ggml.normalizer.{step}" for step in ("lowercase", "strip_accents"))
_SPACES: Any = {"type": "Replace", "pattern": {"Regex": " {2,}"}}
_SPLIT = {"type": "WhitespaceSplit"}
_STRIP = {"type": "Strip", "strip_left": False, "strip_right": True}


@dataclass(frozen=True)
class Pieces:
    """``scores`` of what pairs are joined to, the ``bytes`` and the ``unknown`` token, and whether a text
    gets a space before it (``prefixed``).
    """

    scores: Mapping[str, float]
    unknown: str | None
    prefixed: bool
    bytes: frozenset[str] = frozenset(BYTES)

    def score(self, piece: str | None) -> float:
        """That of a token."""
        return _NEVER if piece is None else self.scores.get(piece, _NEVER)


def pieces_of(content: dict[str, Any], tokenizer: Tokenizer) -> Pieces:
    """The pieces of a ``tokenizer.json``, which ``tokenizer`` has read."""
    model = content["model"]
    vocabulary, added = model["vocab"], content.get("added_tokens", [])
    if missing := [byte for byte in BYTES if byte not in vocabulary]:
        raise _refused(
            f"has no token for the byte {missing[0]}", "a character that is no token would have none"
        )
    prefixed = _is_prefixed(content.get("normalizer"), content.get("pre_tokenizer"))
    _check_added(added, prefixed)
    if any(
        model.get(key)
        for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges")
    ):
        raise _refused("joins pieces in a way of its own", "llama.cpp goes by scores alone")
    text = tokenizer.encode("a", special=False)
    begin, end = [tokenizer.bos_id], tokenizer.eos_ids[:1]
    if tokenizer.encode("a") not in (text, [*begin, *text], [*text, *end], [*begin, *text, *end]):
        raise _refused("puts more around a text than its first and last token", "llama.cpp knows these two")
    pairs = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in model.get("merges", [])]
    names = {token["content"] for token in added}
    return Pieces(_scores(pairs, vocabulary, names), model.get("unk_token"), prefixed)


def _is_prefixed(normalizer: Any, pre_tokenizer: Any) -> bool:
    """Whether a space goes before each text, as :data:`SPACE`, which stands for all of them."""
    steps = _steps(normalizer, "normalizers")
    if steps == [] and _plain(pre_tokenizer) == _UNCUT:
        return False
    if pre_tokenizer in (None, _BY_SPACES) and steps in ([_REPLACED], [_PREPENDED, _REPLACED]):
        return len(steps) > 1
    raise _refused(
        "treats spaces, or characters, in a way that llama.cpp has no setting for",
        "it takes each space for ▁, and puts one before every text, or before none",
    )


def _steps(found: Any, several: str) -> list[Any]:
    if found is None:
        return []
    return list(found[several]) if found.get("type") == "Sequence" else [found]


def _plain(step: Any) -> Any:
    return {key: value for key, value in step.items() if key != "add_prefix_space"} if step else step


def _check_added(added: Sequence[dict[str, Any]], prefixed: bool) -> None:
    for token in added:
        moved = token.get("normalized") and (prefixed or " " in token["content"])
        if moved or token.get("lstrip") or token.get("rstrip") or token.get("single_word"):
            raise _refused(
                f"looks for {token['content']!r:.40} in a way of its own",
                "llama.cpp looks for special tokens as they are, wherever they stand",
            )


def _scores(
    pairs: Sequence[tuple[str, ...]], vocabulary: Mapping[str, int], added: set[str]
) -> dict[str, float]:
    """The score of each piece that pairs are joined to: less the later its first pair stands."""
    scores: dict[str, float] = {}
    last = ""
    for one, other in pairs:
        piece = one + other
        if piece != last and piece in scores:
            raise _refused(f"lists the pairs of {piece!r:.40} apart", "a piece has one score in llama.cpp")
        scores.setdefault(piece, -float(len(scores)))
        last = piece
    listed, formed = set(pairs), set[str]()
    for piece in sorted(vocabulary, key=len):
        for cut in range(1, len(piece)):
            pair = piece[:cut], piece[cut:]
            if not all(len(part) == 1 or part in formed for part in pair):
                continue
            formed.add(piece)
            if pair not in listed and (piece in scores or piece not in added):
                raise _refused(
                    f"does not join {pair[0]!r:.40} and {pair[1]!r:.40}, which are {piece!r:.40} together",
                    "llama.cpp joins all that is a piece together",
                )
    return scores


def _refused(what: str, why: str) -> InputError:
    return InputError(f"the tokenizer {what}, and llama.cpp would give other tokens", why=why, fix=WAY_OUT)


def add_steps(writer: Any, content: dict[str, Any]) -> None:
    """Add whether words are in small letters, and without accents; refuses a ``tokenizer.json`` of WordPiece
    that is another than llama.cpp's.
    """
    steps = content.get("normalizer") or {}
    if steps.get("type") != "BertNormalizer" or not (steps["clean_text"] and steps["handle_chinese_chars"]):
        raise refused(
            "normalizes text in another way than BERT",
            "llama.cpp drops control characters and takes each Chinese character for a word in any case",
        )
    if content.get("pre_tokenizer") != {"type": "BertPreTokenizer"}:
        raise refused("cuts text into words in another way than BERT", "llama.cpp knows that way alone")
    if content["model"].get("continuing_subword_prefix") != _INSIDE:
        raise refused(
            f"marks what goes on with a word by something else than {_INSIDE}", "a file has no mark"
        )
    if any(token.get("normalized") or token.get("single_word") for token in content.get("added_tokens", [])):
        raise refused("looks for tokens in text that is normalized", "llama.cpp looks for them as they are")
    lowercase, accents = bool(steps["lowercase"]), steps.get("strip_accents")
    writer.add_bool(_LOWERCASE, lowercase)
    writer.add_bool(_STRIP_ACCENTS, lowercase if accents is None else bool(accents))


def word_piece(token: str) -> str:
    """What a token is called in the file."""
    return token.removeprefix(_INSIDE) if token.startswith(_INSIDE) else SPACE + token


def refused(what: str, why: str) -> InputError:
    """A tokenizer that llama.cpp has not."""
    return InputError(f"the tokenizer {what}, and llama.cpp would give other tokens", why=why, fix=WAY_OUT)


@dataclass(frozen=True)
class Unigram:
    """``pieces`` with their scores, the id of the ``unknown`` one, and the table of ``characters``."""

    pieces: list[tuple[str, float]]
    unknown: int
    characters: bytes


def unigram_of(content: dict[str, Any]) -> Unigram:
    """The pieces of a ``tokenizer.json``."""
    model, normalizer = content["model"], content.get("normalizer") or {}
    if model.get("byte_fallback") or model.get("unk_id") is None:
        raise refused(
            "has single bytes, or no token for what is unknown", "llama.cpp has one for all that is"
        )
    steps = normalizer["normalizers"] if normalizer.get("type") == "Sequence" else [normalizer]
    first, rest = steps[0], steps[1:]
    if first.get("type") != "Precompiled" or not _spaces_alike(rest, content.get("pre_tokenizer") or {}):
        raise refused(
            "treats spaces, or characters, in a way that llama.cpp has no setting for",
            "it follows SentencePiece's table of characters, joins spaces and puts one before a text",
        )
    added = content.get("added_tokens", [])
    changed = (token for token in added if token.get("normalized") and not token["content"].isascii())
    if any(changed) or any(token.get("single_word") for token in added):
        raise refused("looks for tokens in text that is normalized", "llama.cpp looks for them as they are")
    pieces = [(str(piece), float(score)) for piece, score in model["vocab"]]
    return Unigram(pieces, int(model["unk_id"]), b64decode(first["precompiled_charsmap"]))


def _spaces_alike(steps: list[dict[str, Any]], pre_tokenizer: dict[str, Any]) -> bool:
    """Whether spaces around a text are dropped, several are one, and each text begins with one."""
    several = pre_tokenizer.get("type") == "Sequence"
    cuts = pre_tokenizer["pretokenizers"] if several else [pre_tokenizer]
    spaces = [{**_SPACES, "content": content} for content in (" ", SPACE)]
    whole = len(cuts) == 1 and any(steps == [_STRIP, one] for one in spaces)
    words = cuts[:-1] == [_SPLIT] and (not steps or any(steps == [one] for one in spaces))
    last = cuts[-1]
    marked = last.get("type") == "Metaspace" and last.get("replacement") == SPACE
    scheme = last.get("prepend_scheme", "always" if last.get("add_prefix_space", True) else "never")
    return (whole or words) and marked and scheme == "always"
