"""Which tokenizers run in this process: those of known parts, whose cost is bounded by the text.

A ``tokenizer.json`` is a program over text. Replacements in a row multiply it without end, and a pattern may
backtrack for ever. The tokenizers of published models are made of few parts, and what each can add is known;
all others run in a child process with limits. A known part wrongly left out costs a start of that process.
"""

import json
import re
from typing import Any

# Bytes out for each byte in, at most.
GROWTH_LIMIT = 16
# Of a part by itself. Characters that fold, decompose or become bytes' letters are never longer than this.
_GROWTH = {
    "normalizer": {
        **dict.fromkeys(["Strip", "StripAccents"], 1),
        **dict.fromkeys(["Lowercase", "ByteLevel"], 2),
        **dict.fromkeys(["NFC", "NFD"], 3),
        "BertNormalizer": 8,
        **dict.fromkeys(["NFKC", "NFKD"], 11),
    },
    "pre_tokenizer": {
        **dict.fromkeys(["BertPreTokenizer", "Whitespace", "WhitespaceSplit"], 1),
        **dict.fromkeys(["Punctuation", "Digits", "Split", "UnicodeScripts"], 1),
        **dict.fromkeys(["ByteLevel", "Metaspace"], 4),
    },
    "decoder": {
        **dict.fromkeys(["ByteFallback", "Fuse", "Strip", "Metaspace"], 1),
        **dict.fromkeys(["ByteLevel", "WordPiece", "BPEDecoder"], 2),
    },
    "post_processor": dict.fromkeys(["ByteLevel", "BertProcessing", "RobertaProcessing"], 1),
}
_MEMBERS = {
    "normalizer": "normalizers",
    "pre_tokenizer": "pretokenizers",
    "decoder": "decoders",
    "post_processor": "processors",
}
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
# How published models split text, in linear time.
PATTERNS = frozenset(
    {
        # GPT-2
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        # Llama 3, GPT-4, Phi-4; Qwen 2 and 3; Qwen 3.5
        rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}"
        rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}",
        rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}",
        rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
        rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}",
        # GPT-4o, gpt-oss, Llama 4; Mistral's tekken
        rf"{_CASED[0]}{_CONTRACTIONS}?|{_CASED[1]}{_CONTRACTIONS}?|\p{{N}}{{1,3}}"
        rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}",
        rf"{_CASED[0]}|{_CASED[1]}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}",
        # DeepSeek V3
        r"\p{N}{1,3}",
        "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
        "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
        # Falcon; BLOOM; single letters of spacing
        "[0-9][0-9][0-9]",
        r" ?[^(\s|[.,!?…。，、।۔،])]+",
        *(r"\s+", " {2,}", "\n", "[\r\n]", r"\p{N}"),
    }
)
_HEAD_LIMIT = 4 << 20
_MODEL = re.compile(rb',\s*"model"\s*:\s*(?=\{\s*"type"\s*:\s*"(?:BPE|WordPiece)")')
_ADDED_LIMIT = 128 << 10
_ADDED_LONGEST = 256
_AFFIX_LONGEST = 16
_WORD_LONGEST = 200


def known_parts(data: bytes) -> tuple[dict[str, Any], bytes] | None:
    """What stands before the model, and the model's own JSON, of a ``tokenizer.json`` that may run in this
    process; else None.

    Only what stands before the model is read, so that it costs no more for a large vocabulary.
    """
    found = _MODEL.search(data, 0, _HEAD_LIMIT)
    end = data.rfind(b"}")
    if found is None or data[end + 1 :].strip():
        return None
    try:
        head = json.loads(data[: found.start()] + b"}")
        if not (_added_are_few(head) and _is_bounded(head)):
            return None
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    return head, data[found.end() : end]


def is_known_model(model: Any) -> bool:
    """Whether the options of the library's ``model`` keep its cost within that of published ones."""
    affixes = [getattr(model, name, None) for name in ("continuing_subword_prefix", "end_of_word_suffix")]
    short = all(len(affix or "") <= _AFFIX_LONGEST for affix in affixes)
    return short and (getattr(model, "max_input_chars_per_word", None) or 0) <= _WORD_LONGEST


def _added_are_few(head: dict[str, Any]) -> bool:
    lengths = [len(token["content"]) for token in head.get("added_tokens", [])]
    return sum(lengths) <= _ADDED_LIMIT and max(lengths, default=0) <= _ADDED_LONGEST


def _is_bounded(head: dict[str, Any]) -> bool:
    growth = {name: _growth(name, head.get(name)) for name in _GROWTH}
    encoding = growth["normalizer"] * growth["pre_tokenizer"] * growth["post_processor"]
    return encoding <= GROWTH_LIMIT and growth["decoder"] <= GROWTH_LIMIT


def _growth(name: str, part: Any) -> float:
    """How much ``part`` can make of a byte; KeyError when that is not known."""
    if part is None:
        return 1
    kind = part["type"]
    if kind == "Sequence":
        product = 1.0
        for member in part[_MEMBERS[name]]:
            product *= _growth(name, member)
        return product
    if kind == "Replace":
        return _replacement(part["pattern"], len(part["content"].encode()))
    if kind == "Prepend":
        return 1 + len(part["prepend"].encode())
    if kind == "Split":
        _replacement(part["pattern"], 0)
    if kind == "TemplateProcessing":
        return _template(part)
    return _GROWTH[name][kind]


def _replacement(pattern: dict[str, str], size: int) -> float:
    """Growth when each match of ``pattern`` becomes ``size`` bytes; KeyError for an unknown pattern."""
    if "Regex" in pattern:
        if pattern["Regex"] not in PATTERNS:
            raise KeyError(pattern["Regex"])
        return 1 + size
    return max(1, size / len(pattern["String"].encode())) if pattern["String"] else float("inf")


def _template(part: dict[str, Any]) -> float:
    """1 when the text stands once between few special tokens; a text's own tokens are what may be many."""
    items = [kind for item in part["single"] for kind in item]
    few = len(items) <= 16 and items.count("Sequence") <= 1
    short = all(len(token["ids"]) <= 16 for token in part["special_tokens"].values())
    return 1 if few and short else float("inf")
