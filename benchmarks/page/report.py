"""One self-contained HTML page from measured runs: no network, no script, under 300 KB.

The page is a pure function of the measurement lines. Jinja2 escapes every value, the drawings escape their
own texts, and a content security policy in the page forbids everything but its inline style.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files.disk import disk_full_is_typed, make_folder
from ...files.escaping import printable
from ...files.output_paths import refuse_file
from ...files.storage import open_regular, write_atomic
from ..records.conditions import machine
from ..records.record import Measurement, read, run_files
from .account_table import Grid, parse_grid
from .heat_grid import SHADES
from .join import join
from .predicted import Predicted, read_predictions
from .result_groups import Delivered, ResultGroup
from .sections import section

MOST_BYTES = 300_000
TEMPLATE = "report.html.jinja"
_MACHINES = 4  # that are named under the title
GENERATOR = b'<meta name="generator" content="edgepress">'


def write_report(
    runs: Sequence[Path | str] | Path | str,
    output: Path | str,
    *,
    predicted: Sequence[Path | str] = (),
    grid: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the report of ``runs`` (run files, or directories of them) to the file ``output``.

    Args:
        predicted: files of ``edgepress predict --json`` about the same versions.
        grid: what makes grams of CO₂ of joules, as :func:`.account_table.parse_grid` takes it.

    Raises:
        InputError: a run that is missing or does not parse, or is the output; more lines than fit 300 KB.
        OutputExists: ``output`` is no page of ours and ``overwrite`` is false, or it is no regular file.
    """
    target = Path(output)
    overwrite = overwrite or _is_report(target)
    chosen = [Path(run) for run in ([runs] if isinstance(runs, Path | str) else runs)]
    beside, factor = [Path(one) for one in predicted], parse_grid(grid) if grid else None
    inputs = [*(file for run in chosen for file in run_files(run)), *beside]
    refuse_file(target, overwrite=overwrite, inputs=inputs)
    page = render_report(read(chosen), read_predictions(beside), factor).encode()
    make_folder(target.parent)
    with disk_full_is_typed(target):
        write_atomic(target, page)
    return target


def _is_report(path: Path) -> bool:
    """Whether there is a page of ours, which may be replaced: it holds nothing but measurement lines."""
    if path.is_symlink() or not path.is_file():
        return False
    with open_regular(path) as stream:
        return GENERATOR in stream.read(4096)


def render_report(
    lines: Sequence[Measurement],
    predicted: Sequence[Predicted] = (),
    grid: Grid | None = None,
    *,
    chosen: Delivered | None = None,
) -> str:
    """The page as text; ``chosen``: the version that was delivered, which it recommends."""
    groups = join(lines, chosen)
    page: str = _template().render(
        shades=SHADES,
        sections=[section(group, number, predicted, grid) for number, group in enumerate(groups, 1)],
        summary=_summary(groups, lines),
    )
    size = len(page.encode())
    if size >= MOST_BYTES:
        raise InputError(
            f"the report of {len(lines)} measurements would be {size // 1000} KB, more than 300 KB",
            fix="report fewer runs at once",
        )
    return page


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE)


def _shown(value: Any) -> Any:
    """A value of the page; what acts in strangers' text (an override of its direction) is written out."""
    return printable(value) if type(value) is str else value  # a drawing is Markup, and done


def _summary(groups: Sequence[ResultGroup], lines: Sequence[Measurement]) -> list[str]:
    """The facts under the page's title."""
    versions = _count(sum(len(group.compressed) for group in groups), "compressed version")
    days = sorted({line.created_utc[:10] for line in lines})
    machines = sorted({machine(line) for line in lines if line.device})
    return [
        f"{_count(len(groups), 'model')}, {versions}",
        f"measured {days[0]}" if len(days) == 1 else f"measured {days[0]} to {days[-1]}",
        *machines[:_MACHINES],
        *([f"{len(machines) - _MACHINES} more"] if len(machines) > _MACHINES else []),
    ]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
