"""Schemes: names round-trip, and what a name cannot mean is refused."""

import pytest
from edgepress.compress.numbers.scheme import BITS, GROUP_SIZES, TRELLIS, Scheme
from edgepress.errors import UnknownName
from pydantic import ValidationError


def all_schemes() -> list[Scheme]:
    weight_only = [
        Scheme(bits=bits, group_size=group, symmetric=symmetric)
        for bits in BITS
        for group in (*GROUP_SIZES, None)
        for symmetric in (True, False)
    ]
    words = [Scheme(bits=bits, group_size=None, format=name) for name, bits in TRELLIS.items()]
    return [*weight_only, *words, Scheme(bits=8, group_size=None, activations="token")]


@pytest.mark.parametrize("scheme", all_schemes(), ids=lambda scheme: scheme.name)
def test_name_round_trips(scheme: Scheme) -> None:
    assert Scheme.parse(scheme.name) == scheme


def test_preset_defaults() -> None:
    assert Scheme.parse("W4A16") == Scheme(bits=4, group_size=128)
    assert Scheme.parse("W8A8") == Scheme(bits=8, group_size=None, activations="token")
    assert not Scheme.parse("W4A16_ASYM").symmetric


@pytest.mark.parametrize("name", ["W7A16", "T5A16", "T3A16-g32", "W4A8", "W4A16-g", "", "W4A16_SYM"])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(UnknownName):
        Scheme.parse(name)


@pytest.mark.parametrize("name", ["W4A61", "w4a61"])
def test_near_miss_is_suggested(name: str) -> None:
    with pytest.raises(UnknownName, match="did you mean 'W4A16'"):
        Scheme.parse(name)


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("w4a16-G64", "W4A16-g64"),
        ("w3a16-asym-channel", "W3A16_ASYM-channel"),
        ("fp8-dynamic", "FP8_DYNAMIC"),
        ("int4", "W4A16-g128"),
        ("INT4-g32", "W4A16-g32"),
        ("int8", "W8A8"),
        ("q4_0", "W4A16-g32"),
        ("Q8_0", "W8A16-g32"),
        ("t3a16", "T3A16"),
    ],
)
def test_any_case_and_the_names_that_people_know(said: str, name: str) -> None:
    assert Scheme.parse(said).name == name


@pytest.mark.parametrize(
    ("said", "instead"),
    [
        *(("nf4", "W4A16"), ("Q4_K_M", "Q4_0"), ("iq2_xxs", "Q4_0"), ("TQ2_0", "ternary")),
        ("gptq", "W4A16, which is GPTQ with --text"),
    ],
)
def test_names_of_other_tools_say_what_to_take(said: str, instead: str) -> None:
    with pytest.raises(UnknownName, match=f"take .*{instead}"):
        Scheme.parse(said)


def test_which_names_say_their_groups() -> None:
    assert not any(map(Scheme.names_its_groups, ("W4A16", "w2a16_asym", "int4")))
    assert all(map(Scheme.names_its_groups, ("W4A16-g128", "W4A16-channel", "W8A8", "FP8", "Q4_0")))


@pytest.mark.parametrize("group", [0, 8, 257, -1])
def test_group_size_is_bounded(group: int) -> None:
    with pytest.raises(ValidationError):
        Scheme(bits=4, group_size=group)


def test_bits_per_weight_counts_scales_and_zero_points() -> None:
    assert Scheme.parse("W4A16-g64").bits_per_weight(576) == pytest.approx(4 + 16 / 64)
    assert Scheme.parse("W4A16_ASYM-g64").bits_per_weight(576) == pytest.approx(4 + 20 / 64)
    assert Scheme.parse("T3A16").bits_per_weight(512) == pytest.approx(3 + 16 / 512)
    assert Scheme.parse("W8A8").bits_per_weight(512) == pytest.approx(8 + 16 / 512)
