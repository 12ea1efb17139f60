"""How a byte-level BPE cuts text into words before its merges: a GGUF file gives llama.cpp's name for it,
where ``tokenizer.json`` describes the steps.

Another way gives other tokens for the same text, of numbers and punctuation first, so none is guessed: only a
file that gives no name is read as GPT-2's.
"""

from collections.abc import Sequence
from typing import Any

Step = dict[str, Any]
_BYTES = {"add_prefix_space": False, "trim_offsets": True}
_DIGITS: Step = {"type": "Digits", "individual_digits": True}
# What is a word to Llama 3 and Qwen 2, which differ in how many digits are one.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_THREE_DIGITS, _ONE_DIGIT = _WORDS % "{1,3}", _WORDS % ""
_BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
# DeepSeek-V3 cuts numbers and Chinese or Japanese out first.
_CJK = "[一-龥\u3040-ゟ゠-ヿ]+"
_DEEPSEEK = (
    r'[!"#$%&'
    r"'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"
    "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def _split(pattern: str) -> Step:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _bytes(*before: Step, own_words: bool) -> Step:
    last = {"type": "ByteLevel", **_BYTES, "use_regex": own_words}
    return {"type": "Sequence", "pretokenizers": [*before, last]} if before else last


def _falcon() -> Step:
    """Falcon's last two steps see bytes, as the characters that stand for them: a BPE that was trained with
    them joins none of those that they part.
    """
    numbers = {"type": "Digits", "individual_digits": False}
    steps = [{"type": "Punctuation", "behavior": "Contiguous"}, _bytes(own_words=True), numbers]
    return {"type": "Sequence", "pretokenizers": [*steps, _split("[0-9][0-9][0-9]")]}


# By name the ``pre_tokenizer``; of several with the same one the first is written.
WAYS: dict[str, Step] = {
    **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "default"), _bytes(own_words=True)),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "command-r", "codeshell"), _bytes(_DIGITS, own_words=True)
    ),
    **dict.fromkeys(("qwen2", "stablelm2"), _bytes(_split(_ONE_DIGIT), own_words=False)),
    "bloom": _bytes(_split(_BLOOM), own_words=False),
    "deepseek-v3": _bytes(*map(_split, (r"\p{N}{1,3}", _CJK, _DEEPSEEK)), own_words=False),
    "falcon": _falcon(),
    **dict.fromkeys(
        ("dbrx", "llama-bpe", "smaug-bpe", "lfm2"), _bytes(_split(_THREE_DIGITS), own_words=False)
    ),
}
# What llama.cpp has names for, and cuts in another way where capitals are not ASCII.
_CAPITALS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s"
    r"|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
INEXACT: dict[str, Step] = {
    "gpt-4o": _bytes(_split(_CAPITALS % (_ENDINGS, _ENDINGS, "{1,3}")), own_words=False),
    "tekken": _bytes(_split(_CAPITALS % ("", "", "")), own_words=False),
}


# Of a file that is read: tokens are those of its model, whatever llama.cpp makes of them.
READ = {**WAYS, **INEXACT}


def inexact_name_of(pre_tokenizer: object) -> str | None:
    """llama.cpp's name for a ``pre_tokenizer`` that it only comes close to."""
    found = _plain(pre_tokenizer)
    return next((name for name, way in INEXACT.items() if found is not None and _plain(way) == found), None)


def name_of(pre_tokenizer: object, whole_words: bool) -> str | None:
    """llama.cpp's name for a ``pre_tokenizer``, None where it has none; ``whole_words``: a word that is a
    token is not merged from parts.
    """
    found = _plain(pre_tokenizer)
    name = next((name for name, way in WAYS.items() if found is not None and _plain(way) == found), None)
    return "llama-bpe" if name == "dbrx" and whole_words else name


def _plain(pre_tokenizer: object) -> list[Step] | None:
    """Its steps with every default written, without what changes no words; None for what is none."""
    steps: Any = [pre_tokenizer]
    if isinstance(pre_tokenizer, dict) and pre_tokenizer.get("type") == "Sequence":
        steps = pre_tokenizer.get("pretokenizers")
    if not isinstance(steps, Sequence) or not all(isinstance(step, dict) for step in steps):
        return None
    byte_level = {"add_prefix_space": True, "use_regex": True}
    plain = [{**byte_level, **step} if step.get("type") == "ByteLevel" else step for step in steps]
    return [{key: value for key, value in step.items() if key != "trim_offsets"} for step in plain]
