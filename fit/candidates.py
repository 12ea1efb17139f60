"""What each part of a model may become, with what it costs: damage, bytes shipped, bytes resident.

A unit is a group of linears that read the same inputs, which get one scheme since fast runtimes keep them as
one matrix; the embedding; or a head of its own. What makes states of an image stays in float.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from ..compress.bundle_size import bits_in_bundle, bundle_bytes, table_bits
from ..compress.model.anatomy import Anatomy
from ..compress.model.block_anatomy import Attention, Linear
from ..compress.model.weights import WeightSource
from ..compress.numbers.scheme import Scheme
from ..compress.solve.scheme_costs import divides
from ..compress.solve.table_solving import gains
from ..devices.predict.prediction import ENCODER_ACTIVATIONS, activation_bytes, process_bytes
from .losses import Given, Losses, linear_schemes
from .quantities import CLASSIFIER, COSINE, DECODER, IMAGE_CLASSIFIER, IMAGE_ENCODER, KL, Quantity
from .solve import total
from .speed.times import Times
from .table_losses import table_schemes, tables_in_parts

_PROFILED_TOKENS = 256  # of the cache in a profile: 128 of the prompt and 128 new ones
_PROMPT = _PROFILED_TOKENS // 2


@dataclass(frozen=True)
class Option:
    """A ``scheme``, None for float, and what it costs: ``damage`` as :class:`.losses.Losses` has it, and the
    ``size`` in bytes, which are shipped and, once mapped and read, resident. ``kept``: how many heads or
    channels its part of the block keeps, 0 where the block goes, None for all; ``shape``: inputs and outputs
    that its product has then.
    """

    scheme: Scheme | None
    damage: float
    size: float
    kept: int | None = None
    shape: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """Of the scheme, or ``float``."""
        return "float" if self.scheme is None else self.scheme.name


@dataclass(frozen=True)
class Unit:
    """What gets one option: ``modules`` by their stored names; ``name`` for people: ``block 3: q k v``."""

    name: str
    modules: tuple[str, ...]
    options: tuple[Option, ...]
    is_table: bool = False


@dataclass(frozen=True)
class Space:
    """All units, and what there is whatever is chosen: bytes ``shipped`` of the rest of the bundle, and bytes
    ``resident`` of a process that runs it, these included; ``cache`` of them of keys and values in float32,
    where a method can cache them in fewer bits, which loses ``cache_damage``, 0 where nobody asked.
    Damage is a loss of what is ``judged``; ``before``: that of what was cut from the model first. ``times``:
    predicted seconds of a pass by unit and option, by the key of a budget of speed or energy, all at the same
    sizes. ``solves_tables``: whether a pass rounds embedding and head. ``hears``: whether the model reads
    sounds, of which its decoder writes few tokens each. ``first``: the passes that cut the model before.
    """

    units: tuple[Unit, ...]
    shipped: float
    resident: float
    cache: float = 0.0
    judged: Quantity = KL
    before: float = 0.0
    times: Mapping[str, Times] = field(default_factory=dict)
    solves_tables: bool = False
    hears: bool = False
    first: Sequence[Mapping[str, Any]] = ()
    cache_damage: float = 0.0

    @property
    def damages(self) -> list[list[float]]:
        """By unit and option."""
        return [[option.damage for option in unit.options] for unit in self.units]

    @property
    def sizes(self) -> list[list[float]]:
        """By unit and option, in bytes."""
        return [[option.size for option in unit.options] for unit in self.units]

    def size(self, options: Sequence[int]) -> float:
        """Bytes of the bundle that a choice makes, as predicted."""
        return self.shipped + total(self.sizes, options)

    def chosen(self, options: Sequence[int]) -> list[tuple[Unit, Option]]:
        """Each unit with its option."""
        return [(unit, unit.options[index]) for unit, index in zip(self.units, options, strict=True)]


def space_of(source: WeightSource, losses: Losses | None, given: Given | None = None) -> Space:
    """The candidates of a model, or what each module is ``given`` alone, by its name; without ``losses``
    their damages are not known, and 0.
    """
    anatomy = source.anatomy
    schemes = linear_schemes(anatomy)
    units = [
        _linears(block.index, group, schemes, losses, given)
        for block in anatomy.blocks
        for group in block.inputs()
    ]
    named = [("embedding", anatomy.embedding)] if anatomy.patches is None else []
    named += [("head", anatomy.head)] if anatomy.head is not None and not anatomy.tied else []
    for name, module in named:
        sizes, copies = (anatomy.vocab_size, anatomy.hidden_size), _stored(anatomy, module)
        stored: list[Scheme | None] = [*table_schemes(source), *tables_in_parts(source), None]
        known = {} if losses is None else losses.tables[module]
        options = [_option(scheme, known, copies * table_bits(scheme, *sizes) / 8) for scheme in stored]
        units.append(Unit(name, (module,), _left(options, module, given), is_table=True))
    cache = _cache_bytes(anatomy)
    resident = _process(source) + _activations(anatomy) + cache
    shipped = _rest(source, units)
    judged = COSINE if model_kind(anatomy) in COSINE.models else KL
    resident += shipped
    shrinks = cache if anatomy.kind == DECODER else 0.0
    hears = anatomy.hearing is not None
    return Space(tuple(units), shipped, resident, shrinks, judged, solves_tables=gains(anatomy), hears=hears)


def _stored(anatomy: Anatomy, module: str) -> int:
    """How often a bundle stores the table ``module``: each graph that looks up in it has one."""
    return 2 if anatomy.both_look_up and module == anatomy.embedding else 1


def model_kind(anatomy: Anatomy) -> str:
    """Of those that quantities are measured of."""
    if anatomy.patches is not None:
        return IMAGE_ENCODER if anatomy.classifier is None else IMAGE_CLASSIFIER
    return CLASSIFIER if anatomy.classifier is not None else anatomy.kind


def _linears(
    block: int,
    group: Sequence[Linear],
    schemes: Sequence[Scheme],
    losses: Losses | None,
    given: Given | None,
) -> Unit:
    options = linear_options(group, schemes, losses)
    name = f"block {block}: {' '.join(linear.role for linear in group)}"
    return Unit(name, tuple(linear.name for linear in group), _left(options, group[0].name, given))


def linear_options(group: Sequence[Linear], schemes: Sequence[Scheme], losses: Losses | None) -> list[Option]:
    """Of linears that read the same inputs, in each of ``schemes`` that fits them, and in float."""
    fits = [scheme for scheme in schemes if all(divides(scheme, linear) for linear in group)]
    options = []
    for scheme in (*fits, None):
        known: dict[str, float] = {}
        if losses is not None and scheme is not None:
            known = {scheme.name: sum(losses.linears[one.name][scheme.name] for one in group)}
        bits = sum(
            one.out_features * one.in_features * bits_in_bundle(scheme, one.in_features) for one in group
        )
        options.append(_option(scheme, known, bits / 8))
    return options


def _option(scheme: Scheme | None, known: Mapping[str, float], size: float) -> Option:
    return Option(scheme, known.get(scheme.name, 0.0) if scheme is not None else 0.0, size)


def _left(options: Sequence[Option], module: str, given: Given | None) -> tuple[Option, ...]:
    """Those that are chosen among: the one with the scheme that ``module`` is given, or the useful ones."""
    if given is None:
        return useful(options)
    return tuple(option for option in options if option.scheme == given[module])


def useful(options: Sequence[Option]) -> tuple[Option, ...]:
    """Without those that another one beats in both, by size; integer products stay, for their speed."""
    kept: list[Option] = []
    least = inf
    for option in sorted(options, key=lambda one: (one.size, one.damage)):
        integer = option.scheme is not None and option.scheme.activations is not None
        if option.damage < least or not kept or option.damage == 0.0 or integer:
            kept.append(option)
            least = min(least, option.damage)
    return tuple(kept)


def _rest(source: WeightSource, units: Sequence[Unit]) -> float:
    """Bytes of the bundle without what the units choose."""
    first = [(unit, unit.options[0]) for unit in units]
    tables: list[Scheme | None] = [option.scheme for unit, option in first if unit.is_table]
    linears = {one.name: one.in_features for one in source.anatomy.linears()}
    bits = {
        name: bits_in_bundle(option.scheme, linears[name])
        for unit, option in first
        if not unit.is_table
        for name in unit.modules
    }
    both = (tables[0], tables[-1]) if tables else (None, None)
    whole = bundle_bytes(source, source.anatomy, bits, both, 0)
    return whole - sum(option.size for _, option in first)


def _process(source: WeightSource) -> float:
    """Bytes of a process that runs a bundle, without its weights. Budgets below that are refused before
    anything is measured; a trial says how much more it is.
    """
    tokenizer = source.reader.path / "tokenizer.json"
    read = tokenizer.stat().st_size if tokenizer.is_file() else None
    graphs = 2 if source.anatomy.kind == "encoder_decoder" else 1
    found = process_bytes(read, graphs=graphs)
    return found if source.anatomy.kind == DECODER else found + ENCODER_ACTIVATIONS


def _activations(anatomy: Anatomy) -> float:
    """Of a decoder's prompt in a profile, and of logits; of other models those of a text are not known."""
    groups = [group for block in anatomy.blocks for group in block.inputs()]
    widest = max((sum(linear.out_features for linear in group) for group in groups), default=0)
    return activation_bytes(_PROMPT if anatomy.kind == DECODER else 0, widest, anatomy.vocab_size)


def _cache_bytes(anatomy: Anatomy) -> float:
    """Of keys and values in a profile, in float32; of an encoder–decoder those of what was read and of what
    was written.
    """
    if anatomy.kind == DECODER:
        return _cached(anatomy.attentions(), _PROFILED_TOKENS)
    deep = [(block.attention, block.cross) for block in anatomy.blocks if block.cross is not None]
    read = _PROMPT if anatomy.hearing is None else anatomy.hearing.tokens
    written = _cached([own for own, _ in deep], _PROMPT)
    return written + _cached([cross for _, cross in deep], read)


def _cached(parts: Sequence[Attention], tokens: int) -> float:
    """Bytes of keys and values of so many tokens."""
    return 8.0 * tokens * sum(part.kv_heads * part.head_dim for part in parts)
