"""Numbers on the command line that cannot be: each is refused by every verb that takes it, with the bound."""

import pytest
from edgepress.cli.entry import run

BUNDLE = {
    "generate": ["generate", "nothing", "-p", "x"],
    "encode": ["encode", "nothing", "x"],
    "classify": ["classify", "nothing", "x"],
    "profile": ["profile", "nothing"],
    "validate": ["validate", "nothing", "--against", "nothing"],
    "compress": ["compress", "nothing", "--scheme", "W8A8", "-o", "out"],
}
# By option: the verbs that have it, what is refused, and the bound that is named.
REFUSED: list[tuple[str, tuple[str, ...], tuple[str, ...], str]] = [
    (
        "--threads",
        ("generate", "encode", "classify", "profile", "validate"),
        ("0", "-3", "100000", "x"),
        "1<=x<=1024",
    ),
    ("--seed", ("generate", "profile", "validate", "compress"), ("-1", str(1 << 63), "0.5"), "0<=x<="),
    ("--batch-size", ("encode", "classify"), ("0", "-1", "99999999999"), "1<=x<=1048576"),
    ("--max-new-tokens", ("generate",), ("0", "-1", "99999999999"), "1<=x<=1048576"),
    ("--temperature", ("generate",), ("-1", "nan", "inf", "101"), "0<=x<=100|finite"),
    ("--top-k", ("generate",), ("-1",), "0<=x<="),
    ("--top-p", ("generate",), ("0", "1.5", "nan"), "0<x<=1|finite"),
    ("--repetition-penalty", ("generate",), ("0", "nan"), "0<x<=100|finite"),
    ("--samples", ("compress",), ("0", "-1", "100001"), "1<=x<=100000"),
    ("--length", ("compress",), ("0", "7", "131073"), "8<=x<=131072"),
    ("--length", ("validate",), ("0", "1", "131073"), "2<=x<=131072"),
    ("--group-size", ("compress",), ("0", "-64", "512"), "16<=x<=256"),
    ("--max-time", ("compress",), ("0", "-1", "nan", "inf"), "x>0|finite"),
    ("--windows", ("validate",), ("0", "-1"), "1<=x<=1048576"),
    ("--sentences", ("validate",), ("0", "-1"), "1<=x<=1048576"),
    ("--max-perplexity", ("validate",), ("-1", "nan"), "x>=0|finite"),
    ("--max-kl", ("validate",), ("-1", "nan"), "x>=0|finite"),
    ("--max-label-kl", ("validate",), ("-1", "nan"), "x>=0|finite"),
    ("--min-top1", ("validate",), ("-1", "2", "nan"), "0<=x<=1|finite"),
    ("--max-flips", ("validate",), ("-1", "2", "101%", "nan%"), "0<=x<=1|finite"),
    ("--min-cosine", ("validate",), ("-2", "2", "nan"), "-1<=x<=1|finite"),
    ("--min-label-agreement", ("validate",), ("2", "nan"), "0<=x<=1|finite"),
    ("--min-label-accuracy", ("validate",), ("2", "nan"), "0<=x<=1|finite"),
    ("--prompt-tokens", ("profile",), ("0", "-1"), "1<=x<=1048576"),
    ("--max-new-tokens", ("profile", "generate"), ("0", "-1"), "1<=x<=1048576"),
    ("--batch-size", ("profile", "encode", "classify"), ("0", "-1"), "1<=x<=1048576"),
    ("--blocks", ("profile",), ("0", "-1", "10001"), "1<=x<=10000"),
]


@pytest.mark.parametrize(("option", "verbs", "values", "bound"), REFUSED)
def test_it_is_bad_usage_and_the_bound_is_named(
    option: str,
    verbs: tuple[str, ...],
    values: tuple[str, ...],
    bound: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for verb in verbs:
        for value in values:
            assert run([*BUNDLE[verb], f"{option}={value}"]) == 2
            said = capsys.readouterr().err
            named = [
                one
                for one in (*bound.split("|"), "is not a whole number from", "is not a valid number")
                if one in said
            ]
            assert option in said and named, said
