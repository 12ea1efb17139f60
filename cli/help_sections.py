"""What ``--help`` of a verb shows beside its description: examples first, then its options in sections; what
all verbs share comes last.
"""

from collections.abc import Iterator, Mapping, Sequence

import click

from ..files.limits import LARGEST_SEED

EXAMPLES: Mapping[str, Sequence[str]] = {
    "compress": (
        "edgepress compress smollm2 --scheme W4A16 -o small",
        "edgepress compress DIRECTORY -r best --text TEXT.txt -o small --dry-run",
    ),
    "fit": (
        "edgepress fit smollm2 --max-disk 75MB --text wikipedia -o fitted",
        "edgepress fit minilm --min-cosine 0.98 --text wikipedia -o encoder",
    ),
    "export": (
        "edgepress export small -o bundle",
        "edgepress export small --for standard -o portable",
    ),
    "validate": (
        "edgepress validate bundle --against smollm2",
        "edgepress validate bundle --against smollm2 --text HELD_OUT.txt --max-kl 0.3",
    ),
    "profile": (
        "edgepress profile bundle --quick",
        "edgepress profile bundle --baseline original --record runs/pair.jsonl",
    ),
    "predict": (
        "edgepress predict bundle --on raspberry-pi-5",
        "edgepress predict smollm2 --scheme W4A16 --on here,raspberry-pi-5",
    ),
    "generate": ('edgepress generate bundle --prompt "The capital of France is"',),
    "compare": (
        "edgepress compare runs/",
        "edgepress compare runs/w4.jsonl runs/w8.jsonl --sort quality",
    ),
    "report": ("edgepress report runs/ -o report.html",),
    "encode": (
        'edgepress encode bundle "The river rose" "The stream came up"',
        "edgepress encode bundle --text sentences.txt -o vectors.npy",
    ),
    "classify": ('edgepress classify bundle "A fine film, and a short one"',),
    "tag": ('edgepress tag bundle "Ada Lovelace lived in London"',),
    "rerank": ('edgepress rerank bundle "How does a lock work?" --text passages.txt',),
    "inspect": ("edgepress inspect small", "edgepress inspect bundle --layers"),
    "verify": ("edgepress verify bundle", "edgepress verify bundle --key key.pub"),
    "sign": ("edgepress sign bundle --key key.pem",),
    "push": ("edgepress push bundle OWNER/NAME",),
    "package": ("edgepress package cpu-bundle cuda-bundle -o model.ortpackage",),
    "recipe": (
        "edgepress recipe list",
        "edgepress recipe show best",
        "edgepress recipe passes gptq",
    ),
    "devices": (
        "edgepress devices list",
        "edgepress devices show raspberry-pi-5",
        "edgepress devices measure",
    ),
}

# Of a verb: the options that are its own, by what they decide. What is not named stands under "Options".
SECTIONS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "compress": {
        "Compression": (
            "--recipe",
            "--scheme",
            "--group-size",
            "--output",
            "--protect",
            "--requantize",
            "--strict",
        ),
        "Calibration": ("--text", "--samples", "--length", "--seed", "--field", "--chat", "--answers"),
    },
    "fit": {
        "Budgets of the bundle": ("--max-disk",),
        "Budgets of a device": (
            "--max-memory",
            "--min-decode",
            "--max-first-token",
            "--min-sentences",
            "--max-energy",
            "--on",
        ),
        "Budgets of quality": (
            "--max-kl",
            "--max-slice-kl",
            "--min-cosine",
            "--min-spearman",
            "--min-accuracy",
        ),
        "Text": ("--text", "--field", "--samples", "--length", "--seed"),
        "Search": ("--hours", "--trials", "--executor", "--worker"),
    },
    "export": {
        "Bundle": ("--output", "--format", "--for", "--provider", "--kv", "--activations"),
        "Proof": ("--text", "--no-validate", "--require-faster", "--record"),
    },
    "validate": {
        "Comparison": (
            "--against",
            "--text",
            "--field",
            "--windows",
            "--length",
            "--placement",
            "--sentences",
            "--slices",
            "--seed",
        ),
        "Record": ("--record", "--hub-benchmark"),
        "Thresholds: what misses one exits with 1": (
            "--max-perplexity",
            "--max-kl",
            "--min-top1",
            "--max-loops",
            "--max-flips",
            "--min-cosine",
            "--min-retrieval",
            "--max-label-kl",
            "--min-label-agreement",
            "--min-label-accuracy",
        ),
    },
    "profile": {
        "Measurement": (
            "--baseline",
            "--quick",
            "--blocks",
            "--seed",
            "--record",
            "--per-op",
            "--no-energy",
        ),
        "Workload": ("--prompt-tokens", "--max-new-tokens", "--batch-size"),
        "Where": ("--on", "--provider", "--engine", "--concurrency"),
    },
}

_REST = "Options"
_WHOLE = 1000  # characters that a first sentence does not have
_LAST: Mapping[str, Sequence[str]] = {
    "Machine": ("--device", "--provider", "--threads", "--max-memory", "--max-time"),
    "Run": ("--output", "--dry-run", "--download", "--overwrite", "--restart"),
    "Messages": ("--json", "--quiet", "--verbose", "--help"),
}


def write_examples(verb: str | None, formatter: click.HelpFormatter) -> None:
    """Write the examples of ``verb``, whole lines to copy."""
    examples = EXAMPLES.get(verb or "", ())
    if examples:
        with formatter.section("Examples"):
            for example in examples:
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")


def write_commands(group: click.Group, formatter: click.HelpFormatter) -> None:
    """Write the commands of ``group``, each with its whole first sentence."""
    with formatter.section("Commands"):
        formatter.write_dl(
            [(name, one.get_short_help_str(_WHOLE)) for name, one in sorted(group.commands.items())]
        )


def write_options(command: click.Command, context: click.Context, formatter: click.HelpFormatter) -> None:
    """Write the options of ``command`` in sections."""
    for title, options in _sections(command, context):
        records = [record for one in options if (record := one.get_help_record(context))]
        if records:
            with formatter.section(title):
                formatter.write_dl([(_short(spelt), _short(said)) for spelt, said in records])


def _sections(
    command: click.Command, context: click.Context
) -> Iterator[tuple[str, Sequence[click.Parameter]]]:
    """Title and options of each section, every option once."""
    options = [one for one in command.get_params(context) if isinstance(one, click.Option)]
    left: dict[str, click.Parameter] = {word: one for one in options for word in one.opts}
    own = SECTIONS.get(command.name or "", {})
    first = [(title, _taken(left, names)) for title, names in own.items()]
    last = [(title, _taken(left, names)) for title, names in _LAST.items()]
    rest = list(dict.fromkeys(left.values()))
    yield from [*first, (_REST, rest), *last]


def _short(words: str) -> str:
    return words.replace("INTEGER RANGE", "N").replace(f"0<=x<={LARGEST_SEED}", "x>=0")


def _taken(left: dict[str, click.Parameter], names: Sequence[str]) -> list[click.Parameter]:
    """The options ``names`` that are ``left``, which are no more after this."""
    found = [left[name] for name in names if name in left]
    for word in [word for one in found for word in one.opts]:
        del left[word]
    return found
