"""Whom each compression harms: slices of checkpoints of one model, measured side by side.

    python -m edgepress.benchmarks.lab.programs.slice_table WORK ORIGINAL NAME… [--every N] [--slices NAMES]

``WORK/NAME`` are the checkpoints, which ``NAME="4 bits"`` calls otherwise on the page. What the original
says is computed once for all of them and kept in ``WORK/logits``, in float16 below its largest logit, which
moves KL by about 1e-6. A line each goes to ``WORK/NAME.slices.json``; a killed run goes on where it was. All
of them are sections of a page.
"""

import argparse
import hashlib
import json
import os
import shlex
import time
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....compress.text.corpus import read_corpus
from ...quality.accuracy import score_windows
from ...quality.held_out_text import measured_windows
from ...quality.slices import languages
from ...quality.subgroups.items import GroupText, grouped_texts
from ...quality.subgroups.kept_rows import KeptRows
from ...quality.subgroups.measure_slices import ALL, measure_slices
from ...quality.subgroups.slice_run import Given
from ...quality.subgroups.slice_table import UNITS, effects, number
from ...quality.token_damage import TokenDamage
from ...records.subjects import OpenModel, open_subject
from ..study.page import write_table

PAGE = "Whom compression harms"
Line = dict[str, Any]
WINDOWS, LENGTH = 8, 256


class KeptLogits:
    """A decoder whose logits are computed once for each text, and read from ``directory`` after that."""

    def __init__(self, model: OpenModel, directory: Path) -> None:
        self._model, self._directory = model, directory
        directory.mkdir(parents=True, exist_ok=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def logits(self, input_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """As of :class:`~edgepress.benchmarks.records.subjects.OpenModel`."""
        digest = hashlib.sha256(f"{input_ids.shape}".encode() + input_ids.tobytes()).hexdigest()
        file = self._directory / f"{digest}.npy"
        if not file.is_file():
            logits = self._model.logits(input_ids)
            rounded = (logits - logits.max(axis=-1, keepdims=True)).astype(np.float16)
            part = file.with_suffix(f".{os.getpid()}.part")  # others may compute the same
            with part.open("wb") as stream:
                np.save(stream, rounded)
            part.rename(file)
        kept: NDArray[np.float32] = np.load(file).astype(np.float32)
        return kept


def measure(
    checkpoint: Path, original: Any, names: Sequence[str], every: int, rows: Sequence[GroupText] = ()
) -> dict[str, Any]:
    """The report of the slices ``names`` of ``checkpoint``, its KL on held-out Wikipedia, and what it
    cost."""
    start, subject = time.process_time(), open_subject(checkpoint, threads=1)
    damage: list[TokenDamage] = []
    if subject.kind == "decoder":
        texts = read_corpus("wikipedia", split="held-out").texts()
        ids = measured_windows(original.tokenizer, texts, count=WINDOWS, length=LENGTH, placement="spread")
        score_windows(subject, original, ids, damage=damage)
    kept = KeptRows(checkpoint.with_suffix(".jsonl"), f"{subject.describe().manifest_sha256} {every}")
    report = measure_slices(subject, original, names, Given(damage, rows, every=every), kept)
    every_kl = np.concatenate([one.kl for one in damage]) if damage else np.zeros(1)
    flips = np.concatenate([one.flips for one in damage]) if damage else np.zeros(1)
    return {
        "name": checkpoint.name,
        "scheme": subject.describe().scheme,
        "kl": float(every_kl.mean()),
        "flips": float(flips.mean()),
        "cpu_seconds": time.process_time() - start,
        **report,
    }


def write_page(path: Path, model: str, command: str, versions: dict[str, Line]) -> None:
    """A section of the worst groups and one of each slice that was measured in all ``versions``, which are
    the lines of measurements by their names.
    """
    lines = list(versions.values())
    shared = [
        one["name"]
        for one in lines[0]["slices"]
        if all("groups" in each for line in lines for each in line["slices"] if each["name"] == one["name"])
    ]
    notes = [
        "A cell: the group that loses most, its loss, and how many times that of all other groups. In the "
        "tables below * is an alarm: p below 5 %, corrected for "
        f"{lines[0]['tests']} tests, a quarter above the others, and more than is of no concern.",
        "CPU seconds of each version, with the original where nothing of it was kept: "
        + ", ".join(f"{name} {line['cpu_seconds']:.0f}" for name, line in versions.items()),
    ]
    rows = [*_whole(lines), *(_worst_row(name, lines) for name in shared), _named(lines)]
    write_table(path, f"{model}: the worst of each slice", command, ["", *versions], rows, notes, page=PAGE)
    for name in shared:
        found = [_slice(line, name) for line in lines]
        rows = [*_scripts(name, found), *_group_rows(found)]
        unit = UNITS[found[0]["unit"]]
        note = f"{unit}, {found[0]['items']} items; * an alarm. Sorted by the mean of all versions."
        note += " In brackets: effect sizes before and after." if found[0]["unit"] == "effect" else ""
        title = f"{model}: {found[0]['title']}"
        write_table(path, title, command, [found[0]["title"], *versions], rows, [note], page=PAGE)


def _whole(lines: Sequence[Line]) -> list[list[str]]:
    """What perplexity's relatives say of all text, and which share of answers changed."""
    if not lines[0]["kl"]:
        return []
    rows = [
        ["KL, nats a token, ordinary text", *(f"{line['kl']:.3g}" for line in lines)],
        ["next tokens that changed", *(f"{line['flips']:.1%}" for line in lines)],
    ]
    pairs = [one for one in lines[0]["slices"] if one.get("unit") == "changed" and one["name"] != "choices"]
    if pairs:
        shares = [_changed([_slice(line, one["name"]) for one in pairs]) for line in lines]
        count = sum(one["items"] for one in pairs)
        rows.append([f"choices that changed, of {count}", *(f"{share:.1%}" for share in shares)])
    return rows


def _changed(slices: Sequence[dict[str, Any]]) -> float:
    groups = [group for one in slices for group in one["groups"]]
    items = sum(group["items"] for group in groups)
    return float(sum(group["harm"] * group["items"] for group in groups) / items)


def _worst_row(name: str, lines: Sequence[Line]) -> list[str]:
    found = [_slice(line, name) for line in lines]
    return [f"{found[0]['title']}: {UNITS[found[0]['unit']]}", *map(_worst_cell, found)]


def _worst_cell(one: dict[str, Any]) -> str:
    group = max(one["groups"], key=lambda group: float(group["harm"]))
    others = group["others"]
    times = f", {group['harm'] / others:.1f} ×" if others else ""
    return f"{group['group']}: {_harm(group, one['unit'])}{times}"


def _harm(group: dict[str, Any], unit: str) -> str:
    return number(group["harm"], unit) + (" *" if group["alarm"] else "")


def _named(lines: Sequence[Line]) -> list[str]:
    worst = [line["worst"] for line in lines]
    said = ("none beyond chance" if one is None else f"{one['group']} ({one['slice']})" for one in worst)
    return ["named as harmed most", *said]


def _slice(line: Line, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in line["slices"] if one["name"] == name)
    return found


def _group_rows(found: Sequence[dict[str, Any]]) -> list[list[str]]:
    """A row a group, a cell a version."""
    by_name = [{group["group"]: group for group in one["groups"]} for one in found]
    unit, names = found[0]["unit"], [group["group"] for group in found[0]["groups"]]
    means = {name: np.mean([groups[name]["harm"] / _mean(groups) for groups in by_name]) for name in names}
    order = sorted(names, key=lambda name: -means[name])
    return [[name, *(_cell(groups[name], unit) for groups in by_name)] for name in order]


def _cell(group: dict[str, Any], unit: str) -> str:
    return _harm(group, unit) + (f" ({effects(group)})" if unit == "effect" else "")


def _mean(groups: dict[str, dict[str, Any]]) -> float:
    return float(np.mean([group["harm"] for group in groups.values()])) or 1.0


def _scripts(name: str, found: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Of languages the means of those in Latin letters and of all others, a token too where there is that."""
    if name != "languages":
        return []
    rows = []
    for key, said in (("harm", UNITS[found[0]["unit"]]), ("kl_per_token", UNITS["nats/token"])):
        if key not in found[0]["groups"][0]:
            continue
        for latin, which in ((True, "Latin"), (False, "other")):
            means = [
                np.mean([group[key] for group in one["groups"] if (group["group"] in _latin()) == latin])
                for one in found
            ]
            rows.append([f"mean of {which} scripts: {said}", *(f"{mean:.3g}" for mean in means)])
    return rows


@lru_cache(maxsize=1)
def _latin() -> frozenset[str]:
    """The languages most letters of whose text are Latin."""
    letters: dict[str, list[bool]] = {}
    for one in languages.texts(0):
        own = letters.setdefault(one.group, [])
        own += [unicodedata.name(sign, "").startswith("LATIN") for sign in one.text if sign.isalpha()]
    return frozenset(name for name, found in letters.items() if 2 * sum(found) > len(found))


def _command(given: argparse.Namespace) -> str:
    program = ["python", "-m", "edgepress.benchmarks.lab.programs.slice_table"]
    options = ["--every", str(given.every), "--slices", given.slices]
    options += ["--text", "GROUPS.jsonl"] if given.text else []
    options += ["--title", given.title] if given.title else []
    return shlex.join([*program, "WORK", given.original, *given.names, *options])


def main() -> None:
    """Measure what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("original")
    parser.add_argument("names", nargs="+")
    parser.add_argument("--every", type=int, default=1, help="of the articles, one in so many")
    parser.add_argument("--slices", default=ALL, help="names with commas")
    parser.add_argument("--text", help="a .jsonl file whose rows have a group")
    parser.add_argument("--page", type=Path, default=Path("benchmarks/lab/results/slices.md"))
    parser.add_argument("--title", help="of the model on the page")
    given = parser.parse_args()
    rows = grouped_texts(read_corpus(given.text)) if given.text else []
    original: Any = open_subject(given.original, threads=1)
    if original.kind == "decoder":
        original = KeptLogits(original, given.work / "logits")
    lines = {}
    for name, _, label in (one.partition("=") for one in given.names):
        line = given.work / f"{name}.slices.json"
        if not line.is_file():
            line.write_text(
                json.dumps(measure(given.work / name, original, given.slices.split(","), given.every, rows)),
                encoding="utf-8",
            )
        lines[label or name] = json.loads(line.read_text(encoding="utf-8"))
    write_page(given.page, given.title or given.original, _command(given), lines)


if __name__ == "__main__":
    main()
