"""Heads, channels and blocks beside the bits: the programme against trying every choice, the sizes of what is
narrower, and that nothing changes where no cut helps.
"""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.solve.scheme_costs import divides
from edgepress.fit import candidates
from edgepress.fit.candidates import Option, space_of
from edgepress.fit.cuts import cut_space as cut_space_module
from edgepress.fit.cuts.cut_losses import part_name
from edgepress.fit.cuts.cut_space import CutSpace, lost, with_cuts
from edgepress.fit.cuts.possible import BLOCK, Profile, cuts_of
from edgepress.fit.losses import LINEAR_SCHEMES, Losses
from edgepress.fit.solve import GAP, Limit, Solution, solve
from edgepress.fit.table_losses import TABLE_SCHEMES

FEW = (Scheme.parse("W2A16-g32"), Scheme.parse("W4A16-g32"))


def losses_of(source: WeightSource, seed: int, cut: float) -> Losses:
    """Drawn at random, falling with the bits; cuts about ``cut`` times as dear."""
    draw, anatomy, cuts = np.random.default_rng(seed), source.anatomy, cuts_of(source)

    def rounded(schemes: tuple[Scheme, ...]) -> dict[str, float]:
        return {one.name: float(4.0**-one.bits * draw.uniform(0.5, 2.0)) for one in schemes}

    known = {
        part_name(*item.key): {str(n): float(cut * draw.exponential() / n) for n in cuts.levels(item)}
        for item in cuts.items
    }
    known |= {part_name(block, BLOCK): {"0": float(cut * draw.exponential())} for block in cuts.drops}
    linears = {
        one.name: rounded(tuple(scheme for scheme in LINEAR_SCHEMES if divides(scheme, one)))
        for one in anatomy.linears()
    }
    return Losses(linears, {anatomy.embedding: rounded(TABLE_SCHEMES)}, known)


def space_with_cuts(source: WeightSource, losses: Losses | None) -> CutSpace:
    return with_cuts(space_of(source, losses), source, losses, cuts_of(source))


def choices_of(found: CutSpace, block: int) -> list[dict[int, int]]:
    """Each choice of a block's options by unit: those of a part keep as many, and it goes as a whole."""
    units = [number for number, (index, _) in found.places.items() if index == block]
    rows: list[tuple[Option, ...]] = [found.space.units[number].options for number in units]
    kept = []
    for options in product(*(range(len(row)) for row in rows)):
        counts: dict[str, set[int | None]] = {}
        for number, row, option in zip(units, rows, options, strict=True):
            counts.setdefault(found.places[number][1], set()).add(row[option].kept)
        gone = [0 in each for each in counts.values()]
        if all(len(each) == 1 for each in counts.values()) and all(gone) == any(gone):
            kept.append(dict(zip(units, options, strict=True)))
    return kept


def test_what_is_narrower_has_no_groups_that_were_not_measured(
    make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    """Of an MLP of 160 channels, which groups of 128 do not divide, 128 are left."""
    source = WeightSource.open(make_decoder(tmp_path / "m", intermediate_size=160))
    found = space_with_cuts(source, losses_of(source, 0, 0.02)).space
    (down,) = (unit for unit in found.units if unit.modules == ("model.layers.0.mlp.down_proj",))
    left = [one for one in down.options if one.kept == 128]
    assert left and all(one.scheme is None or one.scheme.group_size == 32 for one in left)


@pytest.mark.parametrize("seed", range(6))
def test_it_chooses_as_trying_every_choice_does(
    seed: int, make_decoder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (candidates, cut_space_module):
        monkeypatch.setattr(module, "linear_schemes", lambda _: FEW)
    monkeypatch.setattr(candidates, "table_schemes", lambda _: FEW[:1])
    source = WeightSource.open(make_decoder(tmp_path / "m", num_hidden_layers=2))
    found = space_with_cuts(source, losses_of(source, seed, 0.02))
    space, draw = found.space, np.random.default_rng(seed)
    other = [[size * draw.uniform(0.5, 1.5) for size in row] for row in space.sizes]
    tables = [space.damages, space.sizes, other]
    blocks = [choices_of(found, block) for block in range(2)]
    used = [
        np.array([[sum(t[n][o] for n, o in choice.items()) for t in tables] for choice in choices])
        for choices in blocks
    ]
    gone = [np.array([[sum(found.drops.uses[n][o] for n, o in c.items())] for c in cs]) for cs in blocks]
    embedding = np.array([[t[-1][o] for t in tables] for o in range(len(space.units[-1].options))])
    total = used[0][:, None, None] + used[1][None, :, None] + embedding
    allowed = (gone[0][:, None] + gone[1][None]) <= found.drops.bound
    bounds = [float(draw.uniform(0.15, 0.5)) * float(total[..., n].max()) for n in (1, 2)]
    kept = allowed & (total[..., 1] <= bounds[0]) & (total[..., 2] <= bounds[1])
    limits = [Limit("size", tables[1], bounds[0]), Limit("other", tables[2], bounds[1])]
    solution = found.solve(space.damages, [limits])
    assert isinstance(solution, Solution) and kept.any()
    best = float(total[..., 0][kept].min())
    assert best - 1e-12 <= solution.damage <= best * (1 + GAP)
    assert all(limit.kept(solution.options) for limit in [*limits, found.drops])
    profile = found.profile(solution.options)
    again = found.solve(space.damages, [limits], only=profile)
    assert isinstance(again, Solution) and again.damage == pytest.approx(solution.damage, rel=2 * GAP)


def test_without_a_cut_it_chooses_as_before(pico_llama: Path) -> None:
    source = WeightSource.open(pico_llama)
    losses = losses_of(source, 0, 1e3)
    whole, found = space_of(source, losses), space_with_cuts(source, losses)
    assert found.options > 0
    bound = sum(min(row) for row in whole.sizes) * 1.5
    alone = solve(whole.damages, [Limit("size", whole.sizes, bound)])
    limits = [Limit("size", found.space.sizes, bound)]
    for only in (None, Profile()):
        both = found.solve(found.space.damages, [limits], only)
        assert isinstance(alone, Solution) and isinstance(both, Solution)
        assert alone.options == both.options and not found.profile(both.options)


def test_bytes_below_those_of_all_bits_are_kept_with_cuts(pico_llama: Path) -> None:
    source = WeightSource.open(pico_llama)
    losses, cuts = losses_of(source, 0, 1.0), cuts_of(source)
    found, smallest = space_with_cuts(source, losses), sum(min(row) for row in space_of(source, None).sizes)
    assert found.smallest < 0.9 * smallest
    solution = found.solve(found.space.damages, [[Limit("size", found.space.sizes, 0.95 * smallest)]])
    assert isinstance(solution, Solution)
    profile = found.profile(solution.options)
    rounding = sum(option.damage for _, option in found.space.chosen(solution.options) if option.kept is None)
    assert profile and 0 < lost(losses, profile) <= solution.damage - rounding
    # The anatomy behind its passes has the shapes that the options were sized by.
    assert len(profile.removed) <= cuts.most == 1
    shapes = {
        name: option.shape
        for unit, option in found.space.chosen(solution.options)
        if option.shape is not None and option.kept
        for name in unit.modules[:1]
    }
    items = {item.key: item for item in cuts.items}
    for block, part, count in profile.kept:
        narrow = items[block, part].part.narrowed(items[block, part].block, count)
        groups = [group for group in narrow.inputs() if group[0].name in shapes]
        assert groups
        for group in groups:
            if cuts.item_of(group[0]) == items[block, part]:
                made = sum(one.out_features for one in group)
                assert shapes[group[0].name] == (group[0].in_features, made)


@pytest.mark.parametrize("model_type", ["qwen2_moe", "mamba"])
def test_families_that_the_passes_refuse_have_none(
    model_type: str, make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    cuts = cuts_of(WeightSource.open(make_decoder(tmp_path / "m", model_type)))
    assert not cuts.items and not cuts.drops and cuts.most == 0


def test_heads_with_slopes_stay_and_channels_may_go(
    make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    cuts = cuts_of(WeightSource.open(make_decoder(tmp_path / "m", "bloom")))
    assert {item.part.name for item in cuts.items} == {"ffn"}


def test_a_profile_is_said_and_kept(pico_llama: Path) -> None:
    cuts = cuts_of(WeightSource.open(pico_llama))
    heads, ffn = (next(one for one in cuts.items if one.key == (1, name)) for name in ("heads", "ffn"))
    profile = Profile(((1, "ffn", 32), (1, "heads", 1)), (2,))
    assert profile.lines(cuts) == [
        f"block 1: 32 of {ffn.counts[-1]} channels, 1 of {heads.counts[-1]} key/value heads",
        "block 2 goes",
    ]
    assert Profile.from_json(profile.as_json) == profile and not Profile()
    assert profile.passes(32) == (
        {
            "pass": "narrow",
            "parts": ["attention", "mlp"],
            "multiple": 32,
            "widths": {"1": {"ffn": 32, "heads": 1}},
        },
        {"pass": "layers", "removed": [2]},
    )
    assert (profile.of(1, "heads"), profile.of(2, "ffn"), profile.of(0, "heads")) == (1, 0, None)
