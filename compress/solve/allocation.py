"""``Allocation``: which scheme each layer gets: a mapping that can be read, edited and used again.

As YAML: the full name of a linear, a colon, the name of a scheme. Shown as a strip: a line a kind of linear,
a digit of bits a block.

What layers of experts cost that no measured token came to: as much as those of the block's others.

A sensitivity of zero would give them the fewest bits, or the most zeros, for want of text alone.

Which scheme each group of linears gets within a budget of stored bits: a multiple-choice knapsack, solved
to optimality (:mod:`.knapsack`); with protected groups of text the choice that spares the worst of them
(:mod:`.knapsack`).
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import FiniteFloat

from ...errors import RecipeError
from ...files.storage import read_json, read_text
from ...files.yaml_safe import load_yaml
from ..model.anatomy import Anatomy
from ..model.block_anatomy import BlockAnatomy, Linear
from ..numbers.scheme import Scheme
from .knapsack import WorstSolution, choose, choose_worst

MANIFEST = "edgepress.json"
Allocation = dict[str, str]
# By linear and scheme name: estimated damage.
Costs = dict[str, dict[str, FiniteFloat]]
# How much more than without protected groups ordinary text may lose.
MOST_OF_ORDINARY = 0.03
Groups = Sequence[Sequence[Linear]]


def read_allocation(value: Any) -> Any:
    """A mapping as it is; a path to a YAML file, or to a checkpoint that an allocation made, as the mapping
    it holds.
    """
    if not isinstance(value, str):
        return value
    path = Path(value)
    if path.is_dir() and (path / MANIFEST).is_file():
        return _kept(path, "allocation")
    try:
        data = load_yaml(read_text(path), source=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read the plan {path}", why=str(error)) from None
    if not isinstance(data, Mapping):
        raise RecipeError(
            f"{path} is no plan", fix="a plan has one line a layer: its name, a colon, a scheme"
        )
    return dict(data)


def read_costs(value: Any) -> Any:
    """A mapping as it is; a path to a checkpoint that an allocation made, as the costs that it measured."""
    return _kept(Path(value), "costs") if isinstance(value, str) else value


def _kept(checkpoint: Path, what: str) -> dict[str, Any]:
    """What an allocation left in the manifest of what it made."""
    manifest = read_json(checkpoint / MANIFEST) if (checkpoint / MANIFEST).is_file() else None
    steps = manifest.get("steps") if isinstance(manifest, Mapping) else None
    for step in steps if isinstance(steps, list) else []:
        details = step.get("details") if isinstance(step, Mapping) else None
        found = details.get(what) if isinstance(details, Mapping) else None
        if isinstance(found, Mapping):
            return dict(found)
    fix = (
        "give a YAML file of layers and schemes"
        if what == "allocation"
        else "leave out costs: they are measured"
    )
    raise RecipeError(f"{checkpoint} was not made by an allocation that left its {what}", fix=fix)


def strip(anatomy: Anatomy, schemes: Mapping[str, Scheme]) -> list[str]:
    """The widths in text: a line for each kind of linear, a digit of bits for each block, first to last.
    ``.`` is a layer in float, a space a block that has no such layer.
    """
    kinds = dict.fromkeys(linear.role for block in anatomy.blocks for linear in block.linears())
    digits = {kind: [" "] * len(anatomy.blocks) for kind in kinds}
    for position, block in enumerate(anatomy.blocks):
        for linear in block.linears():
            scheme = schemes.get(linear.name)
            digits[linear.role][position] = "." if scheme is None else str(scheme.bits)
    width = max(map(len, kinds))
    return [f"{kind.rjust(width)} {''.join(bits)}" for kind, bits in digits.items()]


def mixed_strip(anatomy: Anatomy, schemes: Mapping[str, Scheme]) -> list[str]:
    """:func:`strip` of a model whose layers have different widths; empty when all have the same."""
    widths = {scheme.bits if (scheme := schemes.get(one.name)) else None for one in anatomy.linears()}
    return strip(anatomy, schemes) if len(widths) > 1 else []


def with_unseen(
    blocks: Iterable[BlockAnatomy], costs: Mapping[str, Sequence[float]]
) -> tuple[dict[str, list[float]], list[str]]:
    """``costs`` by linear, a number for each choice, where layers of experts whose numbers are all zero have
    the mean of the same layer of the others; and the names of these layers.
    """
    found, unseen = {name: list(numbers) for name, numbers in costs.items()}, []
    for block in blocks:
        experts = [(*mlp.projections, mlp.down) for mlp in block.expert_mlps()]
        for same in zip(*experts, strict=True):
            names = [linear.name for linear in same if linear.name in costs]
            seen = [name for name in names if any(costs[name])]
            for name in names if seen else ():
                if name not in seen:
                    unseen.append(name)
                    columns = zip(*(costs[one] for one in seen), strict=True)
                    found[name] = [sum(column) / len(seen) for column in columns]
    return found, unseen


def costs_with_unseen(blocks: Iterable[BlockAnatomy], costs: Costs) -> tuple[Costs, list[str]]:
    """The same of the costs of each scheme."""
    numbers, unseen = with_unseen(blocks, {name: list(one.values()) for name, one in costs.items()})
    return {name: dict(zip(one, numbers[name], strict=True)) for name, one in costs.items()}, unseen


def within_budget(
    groups: Groups, schemes: Sequence[Scheme], bits: float, costs: Mapping[str, Costs]
) -> tuple[Allocation, dict[str, Any]]:
    """The scheme of each linear of ``groups``, which have one each, of ``bits`` a weight together; and what a
    manifest keeps of the choice.

    Args:
        costs: of ordinary text, under "", and of each protected group of text.
    """
    sizes = [[sum(_bits(linear, scheme) for linear in group) for scheme in schemes] for group in groups]
    weights = sum(linear.out_features * linear.in_features for group in groups for linear in group)
    names, budget = [scheme.name for scheme in schemes], int(bits * weights)
    rows = {of: _rows(found, groups, names) for of, found in costs.items()}
    ordinary = rows.pop("")
    if not rows:
        choice = choose(ordinary, sizes, budget)
        options, size = choice.options, choice.size
        said: dict[str, Any] = {"predicted": choice.cost, "exact": choice.exact}
    else:
        spared = choose_worst(ordinary, list(rows.values()), sizes, budget, MOST_OF_ORDINARY)
        options, size = spared.options, spared.size
        said = {"predicted": spared.own, "exact": False, "protected": _spared(list(rows), spared)}
    picked = zip(groups, options, strict=True)
    allocation = {linear.name: names[option] for group, option in picked for linear in group}
    return allocation, {**said, "bits_per_weight": size / weights}


def _rows(costs: Costs, groups: Groups, names: Sequence[str]) -> list[list[float]]:
    """What each group of linears costs with each scheme."""
    return [
        [sum(costs[linear.name].get(name, float("inf")) for linear in group) for name in names]
        for group in groups
    ]


def _spared(names: Sequence[str], spared: WorstSolution) -> dict[str, Any]:
    """Of each protected group the loss that is predicted, and that of a choice for ordinary text alone; the
    least that the largest could be; what ordinary text loses, and would lose.
    """
    found = zip(names, spared.losses.tolist(), spared.before.tolist(), strict=True)
    return {
        "groups": {name: {"predicted": loss, "unprotected": before} for name, loss, before in found},
        "worst_at_least": spared.bound,
        "ordinary": {"predicted": spared.own, "unprotected": spared.own_before},
    }


def _bits(linear: Linear, scheme: Scheme) -> int:
    return round(linear.out_features * linear.in_features * scheme.bits_per_weight(linear.in_features))
