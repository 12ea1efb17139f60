"""``Method``: how the codes of a choice are found, which does not add up over the parts of a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..compress.numbers.scheme import Scheme

# By name: to nearest; GPTQ; GPTQ that compensates for the errors of earlier layers.
ROUNDINGS: dict[str, dict[str, Any]] = {
    "rtn": {"pass": "rtn"},
    "gptq": {"pass": "gptq", "refinements": 2},
    "corrected": {"pass": "gptq", "refinements": 2, "correction": 1.0},
}
CACHE_BITS = 8
CACHE: dict[str, Any] = {"pass": "kv_cache", "bits": CACHE_BITS}
# By the mean bits of the linears at most: steps and rates of the packaged recipes with as many (`w2a16-tuned`,
# `w3a16-tuned`, `best`), since what is rounded to fewer has further to go.
_STEPS: tuple[tuple[float, dict[str, Any]], ...] = (
    (2.5, {"batch_tokens": 512, "micro_batch_tokens": 512, "learning_rate": 4e-3}),
    (3.5, {"batch_tokens": 512, "micro_batch_tokens": 512, "learning_rate": 3e-3}),
    (float("inf"), {"batch_tokens": 1024}),
)
# By name: what goes from the model before its weights are rounded. The passes solve which heads, channels and
# blocks; widths are those of every block, since a plan of bits is checked before they are solved.
CUTS: dict[str, dict[str, Any]] = {
    f"{one['pass']} {percent} %": {**one, "keep": percent / 100}
    for one in ({"pass": "narrow", "widths": "uniform"}, {"pass": "layers"})
    for percent in (90, 80, 70)
}
# Or what the solver chooses beside the bits under the budgets (:mod:`.solved_cut`).
SOLVED = "cut as solved"


@dataclass(frozen=True)
class Method:
    """What is done before, in and after the rounding.

    Attributes:
        rounding: of :data:`ROUNDINGS`.
        scaled: whether awq folds scales into what feeds the layers first.
        rotated: whether the model is rotated first; of one whose head is its embedding the value heads alone,
            since a rotation of the hidden states would give it a head of its own.
        epochs: of text from which scales and norms learn afterwards.
        cached: whether keys and values are cached in 8 bits.
        cut: of :data:`CUTS`, or :data:`SOLVED`: heads and channels, or blocks, that go first; "" where none
            do.
        uniform: whether all linears get one scheme, as in packaged recipes.
        packaged: the packaged recipe that is followed word for word, which the others describe; "" for none.
    """

    rounding: str = "gptq"
    scaled: bool = False
    rotated: bool = False
    epochs: int = 0
    cached: bool = False
    cut: str = ""
    uniform: bool = False
    packaged: str = ""

    @property
    def space(self) -> str:
        """The key of its candidates: what goes first, or the recipe that leaves no choice."""
        return self.packaged or self.cut

    @property
    def name(self) -> str:
        """``gptq``, ``narrow 90 %, rotated, awq, corrected, tuned 4 x``, ``best-small as packaged``."""
        if self.packaged:
            return f"{self.packaged} as packaged"
        words = [self.cut] if self.cut else []
        words += ["uniform"] * self.uniform
        words += ["rotated"] * self.rotated + ["awq"] * self.scaled + [self.rounding]
        words += [f"tuned {self.epochs} x"] if self.epochs else []
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
        if self.epochs:
            found.append({"pass": "tune", "training": {"epochs": self.epochs, **_training(plan)}})
        return found + [dict(CACHE)] * self.cached


# Without Optuna, in this order; the last is for the best of those before it.
METHODS = (
    Method(scaled=True),
    Method("corrected", scaled=True),
    Method(scaled=True, uniform=True),
    Method(scaled=True, cut=SOLVED),
    Method(epochs=1),
)


def _training(plan: Mapping[str, str]) -> dict[str, Any]:
    """How what is rounded by ``plan`` learns."""
    mean = sum(Scheme.parse(name).bits for name in plan.values()) / len(plan)
    return {"measurements": 3, **next(steps for most, steps in _STEPS if mean <= most)}


def _usual(plan: Mapping[str, str]) -> str:
    """The scheme that awq's scales are fitted to: the commonest width, with the finest groups."""
    schemes = [Scheme.parse(name) for name in plan.values()]
    bits = Counter(scheme.bits for scheme in schemes).most_common(1)[0][0]
    return f"W{bits}A16-g{min(scheme.group_size or 128 for scheme in schemes)}"
