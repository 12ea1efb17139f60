"""``Anatomy``: where the parts of a model are. Data, derived from the config and the tensor shapes.

A family file returns one of these; the sweep, the exporter and the plan read nothing else about an
architecture. Its blocks are those of :mod:`.block_anatomy`. Modules have two names: that under which
checkpoints store them, and that of transformers' module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from .block_anatomy import Attention, BlockAnatomy, Linear, Norm, Rope
from .hearing.hearing import Hearing
from .image_anatomy import Patches, Tower

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Classifier:
    """``out(norm(activation(dense(x))))``, or ``out(x)``, of last states ``x``: each token's, or a text's.

    Attributes:
        dense: the full name of the linear module ``[hidden, hidden]`` that comes first, or None.
        out: the full name of the linear module ``[labels, hidden]`` that gives the logits.
        labels: their names, in the order of the logits; a single one is that of a reranker, whose logit says
            how well two texts go together.
        labelled: what has labels; of a ``span``, the answer to a question, one logit is its first token's and
            one its last's.
        pooling: what a text's ``x`` is: the state of its first token, the mean of all, or (``late``) the
            head reads each token, and the text's logits are the mean; of an image also (DINOv2) its class
            token's beside the mean of the others.
        several: whether each label of a text holds or not, whatever the others do.
    """

    dense: str | None
    activation: Literal["tanh", "relu", "gelu"]
    out: str
    labels: tuple[str, ...]
    norm: Norm | None = None
    labelled: Literal["text", "token", "span", "image"] = "text"
    pooling: Literal["first", "mean", "late", "first_and_mean"] = "first"
    several: bool = False

    @property
    def by_token(self) -> bool:
        """Whether each token has logits, and not the text or image."""
        return self.labelled in ("token", "span")

    @property
    def one_a_text(self) -> bool:
        """Whether a text has one label."""
        return not self.by_token and not self.several

    def modules(self) -> tuple[str, ...]:
        """The full names of its linear modules."""
        return (self.out,) if self.dense is None else (self.dense, self.out)


@dataclass(frozen=True)
class RelativePositions:
    """Vectors of distances, which q and k of every block read as they do states: a score is
    ``q · k + q · k' + q' · k``, with ``q'`` and ``k'`` of the distance from key to query (He et al., DeBERTa,
    2020, arXiv 2006.03654).

    Attributes:
        table: their module ``[2 · span, hidden]``; distance 0 is row ``span``.
        norm: of its rows, or None.
        farthest: where set, distances beyond half of ``span`` share rows, the more the farther they are, up
            to this one; else each has its own, as far as there are rows.
    """

    table: str
    span: int
    norm: Norm | None = None
    farthest: int | None = None


@dataclass(frozen=True)
class LogitForm:
    """``softcap · tanh(scale · x / softcap)`` of a head's products ``x``; ``scale · x`` without a softcap."""

    scale: float = 1.0
    softcap: float | None = None

    def of(self, products: Tensor) -> Tensor:
        """Logits ``[…, vocab]``."""
        scaled = products if self.scale == 1 else products * self.scale
        return scaled if self.softcap is None else self.softcap * (scaled / self.softcap).tanh()

    def gradient(self, logits: Tensor, gradient: Tensor) -> Tensor:
        """The gradient at the products, of that at the ``logits`` they gave."""
        if self.softcap is not None:
            gradient = gradient * (1 - (logits / self.softcap).square())
        return gradient if self.scale == 1 else gradient * self.scale


@dataclass(frozen=True)
class DecoderEntry:
    """What the decoder of an encoder–decoder adds to its tokens before the first block: the table
    ``position_embedding``, or None, and a norm of the sum.
    """

    position_embedding: str | None
    embedding_norm: Norm | None


Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Anatomy:
    """A whole model.

    Attributes:
        kind: ``decoder`` (causal, with a head), ``encoder``, or ``encoder_decoder``: both, with a head, where
            ``blocks`` are those of the encoder and then those of the decoder.
        base: prefix of the inner model in stored names (``model.`` or ``bert.`` or empty).
        renamed: what stored names begin with, and what transformers' modules begin with in its place; the
            first that fits counts.
        embedding: token embedding module; ``position_embedding``/``token_type_embedding``/``embedding_norm``
            or None.
        patches: of an encoder of images, which has no tokens: ``embedding`` is their convolution then, and
            ``vocab_size`` 0.
        hearing: of an encoder–decoder whose encoder reads sound: ``embedding`` is of the tokens that are
            written, and ``position_embedding`` of the sound; ``max_positions`` counts what is written.
        tower: of an encoder whose vectors are compared with another's, of images or of texts.
        embedding_copies: other modules that look up in the same table, stored or not.
        embedding_scale: what looked-up embeddings are multiplied by.
        embedding_projection: linear module from normed embeddings to the hidden size (ELECTRA), or None.
        position_offset: id of the first position (RoBERTa counts from ``pad_token_id + 1``).
        final_norm, head: None for encoders; ``tied`` when the head is the embedding.
        encoder_norm: of the last states of an encoder that a decoder reads.
        decoder_entry: of the decoder of an encoder–decoder, where it differs from its encoder.
        computed: tables that transformers computes and checkpoints need not store: positions of sines.
        head_bias: the tensor ``[1, vocab]`` that is added to the head's products beside its own bias.
        position_biases: tables of what is added to attention scores by distance, a row for some of them;
            those of ``farthest_bias`` and more have the last.
        relative: what attention reads of distances beside them.
        logit_form: what becomes of the head's products; None leaves them.
        classifier: of an encoder that gives texts or tokens a label.
        kinds_by_number: a block's number in the config says what it consists of: none can be left out.
        other_head: what a head is called that is not read; None where there is none.
    """

    model_type: str
    kind: Literal["decoder", "encoder", "encoder_decoder"]
    base: str
    hidden_size: int
    vocab_size: int
    max_positions: int
    blocks: tuple[BlockAnatomy, ...]
    embedding: str
    embedding_scale: float = 1.0
    position_embedding: str | None = None
    token_type_embedding: str | None = None
    embedding_norm: Norm | None = None
    embedding_projection: str | None = None
    position_offset: int = 0
    final_norm: Norm | None = None
    head: str | None = None
    tied: bool = False
    logit_form: LogitForm | None = None
    renamed: tuple[tuple[str, str], ...] = ()
    classifier: Classifier | None = None
    other_head: str | None = None
    embedding_copies: tuple[str, ...] = ()
    encoder_norm: Norm | None = None
    decoder_entry: DecoderEntry | None = None
    computed: tuple[str, ...] = ()
    head_bias: str | None = None
    position_biases: tuple[str, ...] = ()
    farthest_bias: int = 128
    relative: RelativePositions | None = None
    patches: Patches | None = None
    tower: Tower | None = None
    hearing: Hearing | None = None
    kinds_by_number: bool = False

    @property
    def rope(self) -> Rope | None:
        """The rope of every block; None where they differ, or some have none."""
        parts = self.attentions()
        same = bool(parts) and all(part.rope == parts[0].rope for part in parts)
        return parts[0].rope if same else None

    def ropes(self) -> tuple[Rope, ...]:
        """Each rope that a block has, once."""
        found: list[Rope] = []
        for part in self.attentions():
            if part.rope is not None and part.rope not in found:
                found.append(part.rope)
        return tuple(found)

    def attentions(self) -> list[Attention]:
        """Of the blocks that attend."""
        return [block.mixer for block in self.blocks if isinstance(block.mixer, Attention)]

    @property
    def attends(self) -> bool:
        """Whether every block does."""
        return all(block.attends for block in self.blocks)

    @property
    def labels_texts(self) -> bool:
        """Whether it is a classifier of whole texts or images."""
        return self.classifier is not None and not self.classifier.by_token

    def gates(self) -> Iterator[str]:
        """The linears that weigh experts."""
        for block in self.blocks:
            yield from () if block.experts is None else block.experts.gates

    def stacked_experts(self) -> Iterator[Linear]:
        """The linears of experts that the family stores in one tensor."""
        for block in self.blocks:
            if block.experts is not None and block.experts.stacked:
                yield from block.expert_linears()

    def buffers(self) -> frozenset[str]:
        """Stored tensors that transformers keeps as buffers."""
        forms = (block.experts.router_form for block in self.blocks if block.experts is not None)
        found = {form.correction for form in forms if form is not None}
        return frozenset(found if self.head_bias is None else {*found, self.head_bias})

    @property
    def has_latents(self) -> bool:
        """Whether attention takes keys and values from a narrow state."""
        return any(part.latent is not None for part in self.attentions())

    @property
    def has_experts(self) -> bool:
        """Whether some of its blocks are mixtures of experts."""
        return any(block.experts is not None for block in self.blocks)

    def copies(self) -> tuple[str, ...]:
        """Tensors that are the embedding again: the tied head's, and those of other modules that look up."""
        head = (self.head,) if self.tied and self.head is not None else ()
        return tuple(f"{name}.weight" for name in (*self.embedding_copies, *head))

    def layers(self) -> tuple[int, int]:
        """How many blocks the encoder and the decoder of an encoder–decoder have."""
        deep = sum(block.cross is not None for block in self.blocks)
        return len(self.blocks) - deep, deep

    def ranges(self) -> tuple[range, ...]:
        """The numbers of the blocks of each stack, of which all but encoder–decoders have one."""
        first, count = self.layers()[0], len(self.blocks)
        return (range(first), range(first, count)) if self.kind == "encoder_decoder" else (range(count),)

    def stacks(self) -> tuple[Anatomy, Anatomy]:
        """The encoder and the decoder of an encoder–decoder, each as a model of its own: the decoder's blocks
        also read the encoder's states.
        """
        first, entry = self.layers()[0], self.decoder_entry or DecoderEntry(None, None)
        encoder = replace(
            self,
            kind="encoder",
            blocks=self.blocks[:first],
            final_norm=self.encoder_norm,
            encoder_norm=None,
            position_biases=self.position_biases[:1],
            decoder_entry=None,
        )
        decoder = replace(
            self,
            kind="decoder",
            blocks=self.blocks[first:],
            encoder_norm=None,
            position_biases=self.position_biases[1:],
            position_embedding=entry.position_embedding,
            embedding_norm=entry.embedding_norm,
            decoder_entry=None,
            hearing=None,
        )
        return encoder, decoder

    def without_head(self) -> Anatomy:
        """Of an encoder that is used without its head, as transformers builds it then."""
        renamed = ((self.base, ""),) if self.base else ()
        return replace(self, classifier=None, other_head=None, renamed=renamed)

    def linears(self) -> Iterator[Linear]:
        """Every linear of every block."""
        for block in self.blocks:
            yield from block.linears()


def module_name(anatomy: Anatomy, stored: str) -> str:
    """The path in the built model of a module by its stored name."""
    return _replaced(stored, anatomy.renamed)


def stored_name(anatomy: Anatomy, module: str) -> str:
    """The inverse of :func:`module_name`."""
    return _replaced(module, tuple((theirs, ours) for ours, theirs in anatomy.renamed))


def _replaced(name: str, prefixes: tuple[tuple[str, str], ...]) -> str:
    for old, new in prefixes:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
