"""What is needed to drive a bundle's graphs: a section of its manifest for each kind of model."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Annotated, Literal

from ...errors import UnknownName
from .preprocessing import Preprocessing, Sound
from .typed_json import by_name, choice, flag, integer, items, optional, section, text

PACKED = "uint8"  # a cache of 4-bit codes
_ITEM_BYTES = {"float32": 4, "float16": 2, "int8": 1, PACKED: 1}
_LARGEST = 2**31 - 1
_LARGEST_STATE = 1 << 26
TOKEN_ID = integer(0, _LARGEST)
SIZE = integer(1, _LARGEST)
VOCABULARY = integer(1, 1 << 24)
WIDTH = integer(1, 1 << 20)


@dataclass(frozen=True)
class KVLayer:
    """Key/value cache shape of one layer; layers may differ."""

    kv_heads: Annotated[int, WIDTH]
    head_dim: Annotated[int, WIDTH]

    def width(self, dtype: str) -> int:
        """Stored numbers of one head and token in a cache of ``dtype``: two 4-bit codes share a byte."""
        return self.head_dim // 2 if dtype == PACKED else self.head_dim


def _require_pairs(dtype: str, layers: Sequence[KVLayer]) -> None:
    if dtype == PACKED and any(layer.head_dim % 2 for layer in layers):
        raise ValueError(f"a {PACKED} cache holds two codes a byte, and a head is odd channels wide")


def _bytes_per_token(dtype: str, layers: Sequence[KVLayer]) -> int:
    return sum(2 * layer.kv_heads * layer.width(dtype) for layer in layers) * _ITEM_BYTES[dtype]


@dataclass(frozen=True)
class State:
    """What a block without attention keeps of all tokens: ``name`` is that of the graph's inputs and outputs
    behind ``past_`` and ``present_``, ``shape`` that of one row, in float32.
    """

    name: Annotated[str, text("(conv|ssm)[.][0-9]{1,4}")]
    shape: Annotated[list[int], items(WIDTH, at_least=2, at_most=3)]

    def __post_init__(self) -> None:
        if prod(self.shape) > _LARGEST_STATE:
            raise ValueError(f"a state of {self.shape} numbers is larger than any model's")


@dataclass(frozen=True, kw_only=True)
class DecoderSection:
    """What is needed to drive a decoder graph.

    ``layers`` have keys and values: all blocks, or those numbered in ``attending``; ``states`` are of others.
    """

    layers: Annotated[list[KVLayer], items(section(KVLayer), at_most=4096)]
    attending: Annotated[list[int] | None, optional(items(integer(0, 4095), at_most=4096))] = None
    states: Annotated[list[State], items(section(State), at_most=8192)] = field(default_factory=list)
    kv_dtype: Annotated[Literal["float32", "float16", "int8", "uint8"], choice(*_ITEM_BYTES)] = "float32"
    context_length: Annotated[int, SIZE]
    vocab_size: Annotated[int, VOCABULARY]
    bos_token_id: Annotated[int | None, optional(TOKEN_ID)] = None
    eos_token_ids: Annotated[list[int], items(TOKEN_ID, at_most=1024)] = field(default_factory=list)
    pad_token_id: Annotated[int | None, optional(TOKEN_ID)] = None

    def __post_init__(self) -> None:
        _require_pairs(self.kv_dtype, self.layers)
        if not (self.layers or self.states):
            raise ValueError("a decoder has at least one layer")
        numbers = range(len(self.layers)) if self.attending is None else self.attending
        if len(numbers) != len(self.layers) or list(numbers) != sorted(set(numbers)):
            raise ValueError("attending must number each of the layers, in ascending order")
        if len({state.name for state in self.states}) != len(self.states):
            raise ValueError("two states have the same name")

    def numbered(self) -> list[tuple[int, KVLayer]]:
        """The layers, each with the number of its block."""
        numbers = range(len(self.layers)) if self.attending is None else self.attending
        return list(zip(numbers, self.layers, strict=True))

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes that one token takes in the cache, keys and values of all layers."""
        return _bytes_per_token(self.kv_dtype, self.layers)


_INPUTS = choice("input_ids", "attention_mask", "token_type_ids", "pixel_values")
_POOLING = choice("mean", "cls", "last", "tower")
_LABELLED = choice("text", "token", "span", "image")


@dataclass(frozen=True, kw_only=True)
class EncoderSection:
    """What is needed to drive an encoder graph; one with ``labels`` is a classifier of what is ``labelled``,
    each of which has one label or, with ``several``, any number; one of texts with a single label is a
    reranker of pairs, and one of a ``span`` finds the answer to a question. One that reads images has the way
    in which each ``image`` is prepared. A ``tower`` is one of two encoders whose vectors, of
    ``embedding_size``, are compared; texts are ``filled`` up to the longest with padding that is read. One of
    ``prompts``, by name, goes in front of a text: ``default_prompt`` where none is asked for."""

    pooling: Annotated[Literal["mean", "cls", "last", "tower"] | None, optional(_POOLING)]
    normalize: Annotated[bool, flag] = False
    max_length: Annotated[int, SIZE]
    hidden_size: Annotated[int, WIDTH]
    inputs: Annotated[list[str], items(_INPUTS, at_least=1, at_most=3)]
    labels: Annotated[list[str] | None, optional(items(text(), at_least=1, at_most=1 << 16))] = None
    labelled: Annotated[Literal["text", "token", "span", "image"], _LABELLED] = "text"
    several: Annotated[bool, flag] = False
    image: Annotated[Preprocessing | None, optional(section(Preprocessing))] = None
    embedding_size: Annotated[int | None, optional(WIDTH)] = None
    filled: Annotated[bool, flag] = False
    prompts: Annotated[dict[str, str], by_name(text(), text())] = field(default_factory=dict)
    default_prompt: Annotated[str | None, optional(text())] = None

    def __post_init__(self) -> None:
        if self.default_prompt is not None and self.default_prompt not in self.prompts:
            raise ValueError(f"its default prompt {self.default_prompt!r:.80} is none of its prompts")
        if (self.image is None) != (self.inputs != ["pixel_values"]):
            raise ValueError("a bundle that reads pixel_values, and no other, says how an image is prepared")

    def in_front(self, prompt: str | None) -> str:
        """The text of the ``prompt`` of this name: of the default one for None, none for an empty name."""
        name = self.default_prompt if prompt is None else prompt
        if not name and name not in self.prompts:
            return ""
        if name not in self.prompts:
            raise UnknownName("prompt", str(name), self.prompts)
        return self.prompts[name]

    @property
    def verb(self) -> tuple[str, str]:
        """What such a bundle does to text, and the words of the command that does it."""
        if self.image is not None:
            verb = "classify" if self.labels else "encode"
            return (
                "classifies images, not" if self.labels else "embeds images, not",
                f"{verb} BUNDLE --image FILE",
            )
        if not self.labels:
            return "embeds", "encode BUNDLE TEXT…"
        if self.labelled == "span":
            return "answers", "tag BUNDLE TEXT… --question QUESTION"
        if self.labelled == "token":
            return "tags", "tag BUNDLE TEXT…"
        if len(self.labels) == 1:
            return "ranks", "rerank BUNDLE QUERY TEXT…"
        return "classifies", "classify BUNDLE TEXT…"


_PLACE = items(TOKEN_ID, at_least=1, at_most=1024)


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderSection:
    """What is needed to drive the two graphs of an encoder–decoder: a text of at most ``max_length`` tokens,
    or a ``sound``, is read, and one of at most ``context_length`` is written, ``start_token_id`` in front.
    Where there is one, ``first_token_id`` always follows it, or of each place in ``prompt`` the likeliest of
    its tokens; ``suppressed_ids`` are never written, ``first_suppressed_ids`` not behind the prompt.
    ``kv_dtype`` is of both caches; that of what was read is made by the encoder's graph.
    """

    layers: Annotated[list[KVLayer], items(section(KVLayer), at_least=1, at_most=4096)]
    kv_dtype: Annotated[Literal["float32", "float16", "int8", "uint8"], choice(*_ITEM_BYTES)] = "float32"
    max_length: Annotated[int, SIZE]
    context_length: Annotated[int, SIZE]
    vocab_size: Annotated[int, VOCABULARY]
    start_token_id: Annotated[int, TOKEN_ID]
    first_token_id: Annotated[int | None, optional(TOKEN_ID)] = None
    suppressed_ids: Annotated[list[int], items(TOKEN_ID, at_most=1 << 16)] = field(default_factory=list)
    eos_token_ids: Annotated[list[int], items(TOKEN_ID, at_most=1024)] = field(default_factory=list)
    pad_token_id: Annotated[int | None, optional(TOKEN_ID)] = None
    sound: Annotated[Sound | None, optional(section(Sound))] = None
    prompt: Annotated[list[list[int]], items(_PLACE, at_most=64)] = field(default_factory=list)
    first_suppressed_ids: Annotated[list[int], items(TOKEN_ID, at_most=1 << 16)] = field(default_factory=list)

    def __post_init__(self) -> None:
        _require_pairs(self.kv_dtype, self.layers)
        named = [self.start_token_id, *self.suppressed_ids, *self.eos_token_ids, *self.first_suppressed_ids]
        named += [token for place in self.prompt for token in place]
        named += [] if self.sound is None else [*self.sound.languages.values(), *self.sound.tasks.values()]
        named += [token for token in (self.first_token_id, self.pad_token_id) if token is not None]
        if max(named) >= self.vocab_size:
            raise ValueError(f"token id {max(named)} is outside its vocabulary of {self.vocab_size}")

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes that one token that is written takes in the cache, keys and values of all layers; one that is
        read takes as many where both attentions have the same heads.
        """
        return _bytes_per_token(self.kv_dtype, self.layers)
