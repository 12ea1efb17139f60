"""The command line of the comparison with the peers: ``setup``, ``prepare``, ``measure``, ``table``."""

import argparse
import shlex
import sys
from pathlib import Path
from types import ModuleType

from ....errors import EdgepressError, UnknownName
from ....files.storage import write_atomic
from ..study.page import put_section
from .decoder_models import DECODER_MODELS, prepare, subject
from .lines import read, require_quiet
from .measure import DecoderPlan, measure
from .tables import section
from .workspace import KINDS, Workspace, peers, setup

RESULTS = Path("benchmarks/lab/results")
PAGE = RESULTS / "peers-decoders.md"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m edgepress.benchmarks.lab.peers", description=__doc__)
    parser.add_argument("--place", type=Path, default=Path("runs/peers"), help="where everything is made")
    verbs = parser.add_subparsers(dest="verb", required=True)
    made = verbs.add_parser("setup", help="make the environments of peers")
    made.add_argument("peers", nargs="*", help="all of them when none is named")
    for name, purpose in (
        ("prepare", "convert a model for every engine"),
        ("measure", "run the engines interleaved"),
    ):
        verb = verbs.add_parser(name, help=purpose)
        verb.add_argument("subject", choices=sorted(DECODER_MODELS))
        verb.add_argument("--only", nargs="+", help="these engines alone")
        verb.add_argument("--variants", nargs="+", default=[], help="these of their variants alone")
    verb.add_argument("--rounds", type=int, help="so many [default: 3, to 9 until intervals are within 5 %%]")
    verb.add_argument("--passes", type=int, default=DecoderPlan.passes)
    verb.add_argument("--threads", type=int, nargs="+", default=list(DecoderPlan.threads))
    verb.add_argument("--prompts", type=int, nargs="+", default=list(DecoderPlan.prompt_lengths))
    verb.add_argument("--new-tokens", type=int, default=DecoderPlan.new_tokens)
    verb.add_argument("--no-warm-up", action="store_true", help="time the first pass over each prompt too")
    verb.add_argument("--results", type=Path, default=RESULTS)
    shown = verbs.add_parser("table", help="write the section of a raw file again")
    shown.add_argument("raw", type=Path)
    shown.add_argument("--page", type=Path, default=PAGE)
    for one in (verb, shown):
        one.add_argument("--section", default="", help="its title [default: the model and the processor]")
        one.add_argument(
            "--disturbed", action="store_true", help="write it even if other work was in the way"
        )
    return parser.parse_args()


def _chosen(wanted: list[str] | None, found: dict[str, ModuleType]) -> dict[str, ModuleType]:
    if not wanted:
        return found
    for name in wanted:
        if name.replace("-", "_") not in found:
            raise UnknownName("peer", name, [known.replace("_", "-") for known in found])
    return {name.replace("-", "_"): found[name.replace("-", "_")] for name in wanted}


def _require_variants(arguments: list[str] | None, peers: dict[str, ModuleType]) -> None:
    known = sorted({variant for module in peers.values() for variant in module.VARIANTS})
    for name in arguments or ():
        if name not in known:
            raise UnknownName("variant", name, known)


def _measure(workspace: Workspace, arguments: argparse.Namespace) -> None:
    plan = DecoderPlan(
        rounds=arguments.rounds or DecoderPlan.rounds,
        most_rounds=arguments.rounds or DecoderPlan.most_rounds,
        passes=arguments.passes,
        threads=tuple(arguments.threads),
        prompt_lengths=tuple(arguments.prompts),
        new_tokens=arguments.new_tokens,
        warm_up=not arguments.no_warm_up,
        variants=tuple(arguments.variants),
    )
    chosen = _chosen(arguments.only, peers("decoders"))
    _require_variants(arguments.variants, chosen)
    raw = workspace.root / "runs" / f"{arguments.subject}.jsonl"
    raw.unlink(missing_ok=True)
    measure(workspace, subject(arguments.subject), chosen, plan, raw, _command(arguments))
    kept = arguments.results / "raw" / f"peers-{arguments.subject}.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(kept, raw.read_bytes())
    _show(raw, arguments.results / PAGE.name, arguments)


def _show(raw: Path, page: Path, arguments: argparse.Namespace) -> None:
    """Put the comparison of a raw file on its page, as a section with a title that is given or its own."""
    found, title = read(raw), arguments.section
    if not arguments.disturbed:
        require_quiet(found.disturbances)
    title = title or f"{found.run.title} on {found.run.machine.get('line', '').partition(',')[0]}"
    put_section(page, "Decoders: edgepress and other engines", title, section(found, title))


def _command(arguments: argparse.Namespace) -> str:
    """The command line as it can be given anywhere: this machine's directories by their role."""
    roles = {str(arguments.place): "PLACE", str(arguments.results): "RESULTS"}
    given = [roles.get(word, word) for word in sys.argv[1:]]
    return shlex.join(["python", "-m", "edgepress.benchmarks.lab.peers", *given])


def main() -> None:
    """Do what the command line says."""
    arguments = _arguments()
    workspace = Workspace(arguments.place.absolute())
    if arguments.verb == "setup":
        everything = {name: module for kind in KINDS for name, module in peers(kind).items()}
        for name, module in _chosen(arguments.peers, everything).items():
            setup(workspace, name, module)
    elif arguments.verb == "prepare":
        chosen = _chosen(arguments.only, peers("decoders"))
        _require_variants(arguments.variants, chosen)
        for problem in prepare(workspace, subject(arguments.subject), chosen, arguments.variants):
            print(problem, file=sys.stderr)
    elif arguments.verb == "measure":
        _measure(workspace, arguments)
    else:
        _show(arguments.raw, arguments.page, arguments)


if __name__ == "__main__":
    try:
        main()
    except EdgepressError as error:
        raise SystemExit(str(error)) from None
