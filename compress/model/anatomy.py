"""``Anatomy``: where the parts of a model are. Data, derived from the config and the tensor shapes.

A family file returns one of these; the sweep, the exporter and the plan read nothing else about an
architecture. Its blocks are those of :mod:`.block_anatomy`, what stands around them that of
:mod:`.outer_anatomy`. Modules have two names: that under which checkpoints store them, and that of
transformers' module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from .block_anatomy import Attention, BlockAnatomy, Linear, Norm, Rope
from .hearing.hearing import Hearing
from .outer_anatomy import Classifier, DecoderEntry, LogitForm, Patches, RelativePositions, Tower

__all__ = [
    "Anatomy",
    "Check",
    "Classifier",
    "DecoderEntry",
    "LogitForm",
    "RelativePositions",
    "Shapes",
    "module_name",
    "stored_name",
]

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Anatomy:
    """A whole model.

    Attributes:
        kind: ``decoder`` (causal, with a head), ``encoder`` (also what was a decoder and gives vectors), or
            ``encoder_decoder``: both, with a head, where ``blocks`` are those of the encoder and then those
            of the decoder.
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

    def cached(self, block: BlockAnatomy) -> tuple[Attention, ...]:
        """The attentions of ``block`` whose keys and values are kept from token to token: a decoder's, and in
        the decoder of an encoder–decoder also the one that reads the encoder's states.
        """
        decodes = self.kind == "decoder" or block.cross is not None
        return tuple(block.attentions()) if decodes else ()

    @property
    def both_look_up(self) -> bool:
        """Whether two stacks look up tokens in the embedding: of an encoder–decoder that reads text."""
        return self.kind == "encoder_decoder" and self.hearing is None

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
        """Of a model of one stack that is used without its head, as transformers builds it then: an encoder,
        of a decoder one whose tokens see those before them alone.
        """
        renamed = ((self.base, ""),) if self.base else ()
        blocks = tuple(block.causal() for block in self.blocks) if self.kind == "decoder" else self.blocks
        return replace(
            self,
            kind="encoder",
            blocks=blocks,
            head=None,
            tied=False,
            head_bias=None,
            logit_form=None,
            classifier=None,
            other_head=None,
            renamed=renamed,
        )

    @property
    def looks_back(self) -> bool:
        """Whether it was a decoder, and is an encoder whose tokens see those before them alone."""
        alone = self.kind == "encoder" and self.tower is None
        return alone and any(part.causal for part in self.attentions())

    def linears(self) -> Iterator[Linear]:
        """Every linear of every block."""
        for block in self.blocks:
            yield from block.linears()


# Refuses a model by its anatomy: raises why it cannot be worked on as asked.
Check = Callable[[Anatomy], None]


def module_name(anatomy: Anatomy, stored: str) -> str:
    """The path in the built model of a module by its stored name."""
    return replaced(stored, anatomy.renamed)


def stored_name(anatomy: Anatomy, module: str) -> str:
    """The inverse of :func:`module_name`."""
    return replaced(module, tuple((theirs, ours) for ours, theirs in anatomy.renamed))


def replaced(name: str, prefixes: tuple[tuple[str, str], ...]) -> str:
    """``name`` with the first of the ``prefixes`` that it begins with replaced."""
    for old, new in prefixes:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
