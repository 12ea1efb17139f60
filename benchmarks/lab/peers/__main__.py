"""The command line of the comparison with the peers: ``setup``, ``prepare``, ``measure``, ``table``."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from types import ModuleType

from ....errors import EdgepressError, UnknownName
from ....storage import write_atomic
from ..programs.results_page import machine
from .decoder_models import SUBJECTS, subject
from .environments import setup
from .lines import read
from .measure import Plan, measure
from .prepare import prepare
from .quality import page as quality_page
from .quantize import Limits, circumstances, quantize, with_earlier, write_raw
from .tables import page
from .workspace import Place, engines, pruners, quantizers, trainers

RESULTS = Path("benchmarks/lab/results")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m edgepress.benchmarks.lab.peers", description=__doc__)
    parser.add_argument("--place", type=Path, default=Path("runs/peers"), help="where everything is made")
    verbs = parser.add_subparsers(dest="verb", required=True)
    made = verbs.add_parser("setup", help="make the environments of peers")
    made.add_argument("peers", nargs="*", help="all of them when none is named")
    for name, told in (
        ("prepare", "convert a model for every engine"),
        ("measure", "run the engines in turns"),
    ):
        verb = verbs.add_parser(name, help=told)
        verb.add_argument("subject", choices=sorted(SUBJECTS))
        verb.add_argument("--only", nargs="+", help="these engines alone")
    verb.add_argument("--variants", nargs="+", default=[], help="these of their variants alone")
    verb.add_argument("--rounds", type=int, default=Plan.rounds)
    verb.add_argument("--passes", type=int, default=Plan.passes)
    verb.add_argument("--threads", type=int, nargs="+", default=list(Plan.threads))
    verb.add_argument("--prompts", type=int, nargs="+", default=list(Plan.prompt_lengths))
    verb.add_argument("--new-tokens", type=int, default=Plan.new_tokens)
    verb.add_argument("--no-warm-up", action="store_true", help="time the first pass over each prompt too")
    verb.add_argument("--results", type=Path, default=RESULTS)
    judged = verbs.add_parser("quantize", help="run the quantizers one after the other, and judge them")
    judged.add_argument("--only", nargs="+", help="these tools alone")
    judged.add_argument("--variants", nargs="+", help="these of their variants alone; writes no table")
    judged.add_argument("--make-only", action="store_true", help="evaluate later; writes no table")
    judged.add_argument("--known", action="store_true", help="run nothing: a table of what was made before")
    judged.add_argument("--retry", action="store_true", help="try again what failed before")
    judged.add_argument("--threads", type=int, default=1, help="of every tool")
    judged.add_argument("--timeout", type=float, default=1800.0, help="seconds that one of them may take")
    judged.add_argument("--text", type=Path, nargs="*", default=[], help="texts besides held-out Wikipedia")
    judged.add_argument("--results", type=Path, default=RESULTS)
    shown = verbs.add_parser("table", help="write the table of a raw file again")
    shown.add_argument("raw", type=Path)
    shown.add_argument("output", type=Path)
    return parser.parse_args()


def _chosen(wanted: list[str] | None, found: dict[str, ModuleType]) -> dict[str, ModuleType]:
    if not wanted:
        return found
    for name in wanted:
        if name.replace("-", "_") not in found:
            raise UnknownName("peer", name, [known.replace("_", "-") for known in found])
    return {name.replace("-", "_"): found[name.replace("-", "_")] for name in wanted}


def _require_variants(asked: list[str] | None, peers: dict[str, ModuleType]) -> None:
    known = sorted({variant for module in peers.values() for variant in module.VARIANTS})
    for name in asked or ():
        if name not in known:
            raise UnknownName("variant", name, known)


def _measure(place: Place, asked: argparse.Namespace) -> None:
    plan = Plan(
        rounds=asked.rounds,
        passes=asked.passes,
        threads=tuple(asked.threads),
        prompt_lengths=tuple(asked.prompts),
        new_tokens=asked.new_tokens,
        warm_up=not asked.no_warm_up,
        variants=tuple(asked.variants),
    )
    chosen = _chosen(asked.only, engines())
    _require_variants(asked.variants, chosen)
    raw = place.root / "runs" / f"{asked.subject}.jsonl"
    raw.unlink(missing_ok=True)
    measure(place, subject(asked.subject), chosen, plan, raw, _command(asked))
    kept = asked.results / "raw" / f"peers-{asked.subject}.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(kept, raw.read_bytes())
    write_atomic(asked.results / f"peers-{asked.subject}.md", page(read(raw)).encode())


def _command(asked: argparse.Namespace) -> str:
    """The command line as it can be given anywhere: this machine's directories by their role."""
    places = {str(asked.place): "PLACE", str(asked.results): "RESULTS"}
    places |= {str(text): text.name for text in getattr(asked, "text", [])}
    given = [places.get(word, word) for word in sys.argv[1:]]
    return shlex.join(["python", "-m", "edgepress.benchmarks.lab.peers", *given])


def _quantize(place: Place, asked: argparse.Namespace) -> None:
    limits = Limits(asked.threads, asked.timeout, asked.retry, judge=not asked.make_only, run=not asked.known)
    chosen = _chosen(asked.only, quantizers())
    _require_variants(asked.variants, chosen)
    found = [
        quantize(place, peer, module, variant, limits, asked.text)
        for peer, module in chosen.items()
        for variant in module.VARIANTS
        if not asked.variants or variant in asked.variants
    ]
    if asked.variants or asked.make_only:
        return
    raw = asked.results / "raw" / "peers-quantizers.jsonl"
    found = with_earlier(found, raw)
    write_raw(raw, found)
    notes = [*circumstances(asked.threads), f"The floor is of: {machine()}", f"Command: `{_command(asked)}`"]
    write_atomic(asked.results / "peers-quantizers.md", quality_page(found, notes).encode())


def main() -> None:
    """Do what the command line says."""
    asked = _arguments()
    place = Place(asked.place.absolute())
    if asked.verb == "setup":
        for name, module in _chosen(asked.peers, pruners() | trainers() | engines() | quantizers()).items():
            setup(place, name, module)
    elif asked.verb == "prepare":
        for problem in prepare(place, subject(asked.subject), _chosen(asked.only, engines())):
            print(problem, file=sys.stderr)
    elif asked.verb == "measure":
        _measure(place, asked)
    elif asked.verb == "quantize":
        _quantize(place, asked)
    else:
        write_atomic(asked.output, page(read(asked.raw)).encode())


if __name__ == "__main__":
    try:
        main()
    except EdgepressError as error:
        raise SystemExit(str(error)) from None
