"""``Method``: how the codes of a choice are found, which does not add up over the parts of a model."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..compress.numbers.scheme import Scheme
from ..compress.recipe_files import step_of

TUNE, QAT = "tune", "qat"
# By name: to nearest; GPTQ; GPTQ that compensates for the errors of earlier layers.
ROUNDINGS: dict[str, dict[str, Any]] = {
    "rtn": {"pass": "rtn"},
    "gptq": {"pass": "gptq", "refinements": 2},
    "corrected": {"pass": "gptq", "refinements": 2, "correction": 1.0},
}
_LEARNED = {TUNE: "tuned", QAT: "codes learned"}
# The recipe whose rate of codes is taken: those that GPTQ found have less far to go than scales.
_CODES = "w3a16-qat"
CACHE_BITS = 8
CACHE: dict[str, Any] = {"pass": "kv_cache", "bits": CACHE_BITS}
# By the mean bits of the linears at most: the recipe whose steps and rates are taken, since what is rounded
# to fewer has further to go.
_STEPS = ((2.5, "w2a16-tuned"), (3.5, "w3a16-tuned"), (float("inf"), "best"))
_MEASURED = 3  # times, while it learns
# What learning leaves of the predicted loss of linears: of SmolLM2 in groups of 64 in 2, 3 and 4 bits 0.60,
# 0.62 and 0.64 (`w2a16-tuned`, `w3a16-tuned` and `best` on sealed news). Embedding and head do not learn.
_LEFT = 0.62
# By name: what goes from the model before its weights are rounded. The passes solve which heads, channels and
# blocks; widths are those of every block, since a plan of bits is checked before they are solved.
CUTS: dict[str, dict[str, Any]] = {
    f"{one['pass']} {percent} %": {**one, "keep": percent / 100}
    for one in ({"pass": "narrow", "widths": "uniform"}, {"pass": "layers"})
    for percent in (90, 80, 70)
}
# Or what the solver chooses beside the bits under the budgets (:mod:`.cut_space`); and once more
# where what it chose is not fast enough as measured.
SOLVED = "cut as solved"
AGAIN = "cut as solved again"
SOLVED_CUTS = (SOLVED, AGAIN)
# What a cut leaves learns from the original for as many epochs, before it is rounded.
RECOVERED = ", recovered"
RECOVERY: dict[str, Any] = {
    "pass": "distill",
    "losses": "outputs",
    "training": {"epochs": 2, "measurements": 3},
}


@dataclass(frozen=True)
class Method:
    """What is done before, in and after the rounding.

    Attributes:
        rounding: of :data:`ROUNDINGS`.
        scaled: whether awq folds scales into what feeds the layers first.
        rotated: whether the model is rotated first; of one whose head is its embedding the value heads alone,
            since a rotation of the hidden states would give it a head of its own.
        epochs: of text from which what was rounded learns afterwards; ``learned``: by which pass, scales
            and norms (``tune``) or codes too (``qat``).
        cached: whether keys and values are cached in 8 bits.
        cut: of :data:`CUTS` or :data:`SOLVED_CUTS`: heads and channels, or blocks, that go first; "" where
            none do. ``recovered``: whether what it leaves learns before it is rounded.
        uniform: whether all linears get one scheme, as in packaged recipes.
        packaged: the packaged recipe that is followed word for word, which the others describe; "" for none.
    """

    rounding: str = "gptq"
    scaled: bool = False
    rotated: bool = False
    epochs: int = 0
    learned: str = TUNE
    cached: bool = False
    cut: str = ""
    recovered: bool = False
    uniform: bool = False
    packaged: str = ""

    @property
    def left_by_learning(self) -> float:
        """The share that learning leaves of what linears lose, beside that of embedding and head."""
        return _LEFT if self.epochs else 1.0

    @property
    def space(self) -> str:
        """The key of its candidates: what goes first, or the recipe that leaves no choice."""
        return self.packaged or self.behind

    @property
    def behind(self) -> str:
        """What goes first, and whether what is left learns; "" for the model as it is."""
        return self.cut + RECOVERED * self.recovered

    @property
    def name(self) -> str:
        """``gptq``, ``narrow 90 %, rotated, corrected, tuned 4 x``, ``best-small as packaged``."""
        if self.packaged:
            return f"{self.packaged} as packaged"
        words = [self.space] if self.cut else []
        words += ["uniform"] * self.uniform
        words += ["rotated"] * self.rotated + ["awq"] * self.scaled + [self.rounding]
        words += [f"{_LEARNED[self.learned]} {self.epochs} x"] if self.epochs else []
        return ", ".join(words + ["8-bit cache"] * self.cached)

    def passes(
        self,
        plan: Mapping[str, str],
        tables: Sequence[Mapping[str, Any]],
        *,
        tied: bool,
        samples: int | None,
        first: Sequence[Mapping[str, Any]] = (),
    ) -> list[dict[str, Any]]:
        """Of a recipe; ``plan`` has the scheme of each linear, ``tables`` the pass that rounds embedding and
        head if there is one, ``tied`` models have no head of their own; linears are rounded by so many
        ``samples``, or all. Learning reads all of the text, once an epoch. ``first``: the passes that cut.
        """
        few = {} if samples is None else {"samples": samples}
        found = [dict(one) for one in first]
        found += [{"pass": "rotate", "residual": not tied}] if self.rotated else []
        if self.scaled:
            found.append({"pass": "awq", "scheme": _usual(plan), "quantize": False, **few})
        using = ROUNDINGS[self.rounding]
        found.append({"pass": "allocate", "plan": dict(plan), "using": using, **few})
        # Before what learns, which then learns to make up for that too.
        found += [dict(one) for one in tables]
        if self.epochs and self.learned == QAT:
            found.append(_learning_codes(self.epochs, moved=self.scaled or self.rotated or bool(first)))
        elif self.epochs:
            found.append(_learning(self.epochs, plan))
        return found + [dict(CACHE)] * self.cached


# What the best of others is tried with.
LEARNING = Method(epochs=1)
# Without Optuna, in this order: what a cut leaves is measured again, in time in which learning gains more.
METHODS = (
    Method(scaled=True),
    Method("corrected", scaled=True),
    Method(scaled=True, uniform=True),
    LEARNING,
    Method(scaled=True, cut=SOLVED),
)


def _learning_codes(epochs: int, *, moved: bool) -> dict[str, Any]:
    """The pass by which codes learn, from their own values where weights are not the original's any more:
    ``moved`` by scales, a rotation or a cut.
    """
    start = {"start": "codes"} if moved else {}
    training = {"epochs": epochs, "measurements": _MEASURED, "learning_rate": 1e-3}
    return {**step_of(_CODES, QAT), **start, "training": training}


def _learning(epochs: int, plan: Mapping[str, str]) -> dict[str, Any]:
    """The pass by which scales and norms of what is rounded by ``plan`` learn."""
    mean = sum(Scheme.parse(name).bits for name in plan.values()) / len(plan)
    recipe = next(recipe for most, recipe in _STEPS if mean <= most)
    training = {**step_of(recipe, TUNE)["training"], "epochs": epochs, "measurements": _MEASURED}
    return {"pass": TUNE, "training": training}


def _usual(plan: Mapping[str, str]) -> str:
    """The scheme that awq's scales are fitted to: the commonest width, with the finest groups."""
    schemes = [Scheme.parse(name) for name in plan.values()]
    bits = Counter(scheme.bits for scheme in schemes).most_common(1)[0][0]
    return f"W{bits}A16-g{min(scheme.group_size or 128 for scheme in schemes)}"
