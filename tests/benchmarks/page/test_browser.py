"""The page in a real browser: it fits phones and desks, its text can be read, and it prints on few sheets."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepress.benchmarks.page.report import render_report
from edgepress.benchmarks.records.record import Measurement, SampleAnswer, Subject

pytestmark = [
    pytest.mark.chain,
    pytest.mark.skipif(
        shutil.which("chromium") is None and shutil.which("chromium-browser") is None,
        reason="no Chromium on PATH: the page is not rendered",
    ),
]

# WCAG 2.1, success criterion 1.4.3, for text of any size.
LEAST_CONTRAST = 4.5
SMALLEST_TEXT = 9
MOST_SHEETS = 6
FRAME = """<!doctype html><body style="margin:0">
<iframe id="f" style="border:0;width:{width}px;height:800px"></iframe>
<script>
const frame = document.getElementById("f");
const box = element => element.getBoundingClientRect();
const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
  .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const behind = element => {{
  for (let one = element; one; one = one.parentElement) {{
    const colour = numbers(getComputedStyle(one).backgroundColor);
    if (colour[3] !== 0) return light(colour);
  }}
  return 1;
}};
function text(page) {{
  const walker = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode()) {{
    const words = walker.currentNode.data.trim(), parent = walker.currentNode.parentElement;
    if (!words || !box(parent).width) continue;
    const style = getComputedStyle(parent), svg = parent.closest("svg");
    if (svg && parent.tagName !== "text") continue;
    const scale = svg ? box(svg).width / svg.viewBox.baseVal.width : 1;
    const ink = light(numbers(svg ? style.fill : style.color)), paper = behind(parent);
    const contrast = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    found.push([words.slice(0, 40), contrast, scale * parseFloat(style.fontSize)]);
  }}
  return found;
}}
frame.onload = () => {{
  const page = frame.contentDocument, root = page.documentElement;
  const shown = [...page.querySelectorAll("svg")].filter(svg => box(svg).width > 0).length;
  const folded = [...page.querySelectorAll("details.fold[open]")].length;
  page.querySelectorAll("details").forEach(element => {{ element.open = true; }});
  const wide = [...page.querySelectorAll("main *")].filter(element => box(element).right > {width} + 1);
  document.body.dataset.found = JSON.stringify({{
    scroll: root.scrollWidth, shown, folded, text: text(page), paper: behind(page.body),
    wide: wide.map(e => e.outerHTML.slice(0, 80)).slice(0, 3),
  }});
}};
frame.srcdoc = {page};
</script>"""


def _chromium(profile: Path, *arguments: str) -> str:
    binary = shutil.which("chromium") or shutil.which("chromium-browser")
    assert binary is not None
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-sync", "--disable-background-networking", "--disable-component-update"]
    command = [
        binary,
        *flags,
        "--hide-scrollbars",
        f"--user-data-dir={profile}",
        "--virtual-time-budget=2000",
    ]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def _seen(folder: Path, page: str, width: int, scheme: str = "light") -> dict[str, Any]:
    """What the browser makes of ``page`` in a window of ``width`` pixels."""
    host = folder / "host.html"
    host.write_text(FRAME.format(width=width, page=json.dumps(page).replace("</", "<\\/")), encoding="utf-8")
    flag = f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"
    dom = _chromium(folder / "profile", flag, "--window-size=1280,900", "--dump-dom", host.as_uri())
    body = re.search(r'<body[^>]*data-found="([^"]*)"', dom)
    assert body is not None
    found: dict[str, Any] = json.loads(body[1].replace("&quot;", '"').replace("&amp;", "&"))
    return found


def _long(line: Measurement) -> Measurement:
    """The line with words that break nowhere."""
    word = "x" * 90

    def subject(old: Subject) -> Subject:
        changes = {"name": word, "source": word, "scheme": f"{old.scheme}{word}"}
        return old.model_copy(update=changes)

    return line.model_copy(
        update={
            "subject": subject(line.subject),
            "baseline": subject(line.baseline) if line.baseline else None,
            "command": word,
            "device": {"cpu": {"model": word}, "os": word} if line.device else {},
            "answers": [SampleAnswer(prompt=word, original=word, compressed=word)] * len(line.answers),
        }
    )


def _on_two_devices(lines: list[Measurement]) -> list[Measurement]:
    board = {"fingerprint": "board", "cpu": {"model": "Cortex-A76"}}
    return [*lines, *(line.model_copy(update={"device": board}) for line in lines if line.device)]


@pytest.mark.parametrize("change", [list, _on_two_devices, lambda lines: [*map(_long, lines)]])
@pytest.mark.parametrize(
    "width", [1280, pytest.param(910, marks=pytest.mark.slow), pytest.param(800, marks=pytest.mark.slow), 390]
)
def test_nothing_is_wider_than_the_screen(
    tmp_path: Path,
    measured: list[Measurement],
    width: int,
    change: Callable[[list[Measurement]], list[Measurement]],
) -> None:
    page = render_report(change(measured))
    found = _seen(tmp_path, page, width)
    assert (found["scroll"], found["wide"]) == (width, [])
    assert found["shown"] == page.count("<svg") / 2  # of each drawing the wide or the narrow one
    assert found["folded"] == 0


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (1280, "light"),
        (390, "dark"),
        pytest.param(390, "light", marks=pytest.mark.slow),
        pytest.param(1280, "dark", marks=pytest.mark.slow),
    ],
)
def test_all_text_can_be_read(tmp_path: Path, measured: list[Measurement], width: int, scheme: str) -> None:
    found = _seen(tmp_path, render_report(measured), width, scheme)
    assert (found["paper"] < 0.05) if scheme == "dark" else (found["paper"] > 0.9)
    assert len(found["text"]) > 300
    assert [(words, ratio) for words, ratio, _ in found["text"] if ratio < LEAST_CONTRAST] == []
    assert [(words, size) for words, _, size in found["text"] if size < SMALLEST_TEXT] == []


@pytest.mark.parametrize("sheet", ["A4", pytest.param("Letter", marks=pytest.mark.slow)])
def test_it_prints_on_few_sheets(tmp_path: Path, measured: list[Measurement], sheet: str) -> None:
    page = render_report(measured).replace("</style>", f"@page {{ size: {sheet}; }}</style>")
    source, printed = tmp_path / "report.html", tmp_path / "report.pdf"
    source.write_text(page, encoding="utf-8")
    _chromium(tmp_path / "profile", f"--print-to-pdf={printed}", source.as_uri())
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", printed.read_bytes())) <= MOST_SHEETS
