"""The page: complete, small, self-contained and inert."""

import re
import unicodedata
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from edgepress.benchmarks.page.report import MOST_BYTES, render_report, write_report
from edgepress.benchmarks.records import record
from edgepress.benchmarks.records.energy_record import Energy, EnergyWindow
from edgepress.benchmarks.records.record import Measurement, SampleAnswer, Subject, Validity
from edgepress.benchmarks.speed.per_op import accounts, with_bandwidth
from edgepress.benchmarks.speed.trace import Kernel
from edgepress.errors import InputError, OutputExists
from edgepress.files.escaping import printable
from edgepress.runtime.bundle.graph_file import GraphFile

pytestmark = pytest.mark.chain


MakeSubject = Callable[..., Subject]

HOSTILE = [
    "<script>alert(1)</script>",
    "<SCRIPT SRC=//evil.example/x.js></SCRIPT>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    '"><script>alert(1)</script>',
    "'><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' onfocus='alert(1)' autofocus='",
    "</title><script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "</text></svg><script>alert(1)</script>",
    "</pre><iframe src=javascript:alert(1)></iframe>",
    "</desc><foreignObject><body onload=alert(1)></foreignObject>",
    "<a href=javascript:alert(1)>x</a>",
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "<base href=//evil.example/>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<style>body{background:url(//evil.example)}</style>",
    "<form action=//evil.example><button>go</button></form>",
    "<math><mi xlink:href=javascript:alert(1)>x</mi></math>",
    "<!--><script>alert(1)</script-->",
    "<![CDATA[<script>alert(1)</script>]]>",
    "{{ 7 * 7 }}{% include '/etc/passwd' %}",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#x3C;script&#x3E;alert(1)",
    "\u202e<script>\u2066alert(1)",
    "<details open ontoggle=alert(1)>x",
]


class Page(HTMLParser):
    """Collects tags, attributes and texts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.texts: list[str] = []
        self.identifiers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name in ("href", "src", "action", "xlink:href"):
                self.links.append(value or "")
            if name == "id":
                self.identifiers.append(value or "")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="session")
def page(measured: list[Measurement]) -> str:
    """The report of the synthetic measurements."""
    return render_report(measured)


def test_the_page_is_small_and_loads_nothing(page: str) -> None:
    assert len(page.encode()) < MOST_BYTES
    parsed = Page(page)
    assert not parsed.tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    assert all(link.startswith("#") for link in parsed.links)
    assert "url(" not in page
    assert "@import" not in page
    assert not re.search(r"https?://", page)
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page


def test_each_identifier_is_unique_and_each_link_arrives(page: str) -> None:
    parsed = Page(page)
    assert len(parsed.identifiers) == len(set(parsed.identifiers))
    assert {link.removeprefix("#") for link in parsed.links} <= set(parsed.identifiers)
    named = re.findall(r'aria-labelledby="([^"]+)"', page)
    assert {name for names in named for name in names.split()} <= set(parsed.identifiers)


def test_every_section_is_there_for_both_models(page: str) -> None:
    headings = re.findall(r"<h[23]>([^<]+)</h[23]>", page)
    expected = [
        "Versions and devices",
        "Trade-offs",
        "Results on AMD EPYC 9R14, 2 threads",
        "Damage by layer",
        "Where the time goes",
        "What these numbers do not say",
    ]
    expected += ["Environment", "Validity", "Reproduce", "Provenance"]
    assert [name for name in headings if name in expected] == expected * 2
    assert re.findall(r"<summary><h3>([^<]+)</h3>", page) == expected[-4:] * 2
    texts = " ".join(Page(page).texts)
    assert (
        "4 bits (W4A16-g64 gptq): 6.5× smaller, 3.6× faster in decoding on AMD EPYC 9R14, perplexity +14 %."
        in texts
    )
    assert "8 bits (W8A8 rtn): 3.7× smaller, 1.7× faster in sentences per second on AMD EPYC 9R14" in texts
    assert texts.count("★ recommended") == 2
    assert "onnxruntime 1.32.0" in texts
    assert "Not measured: energy" in texts
    assert "edgepress validate runs/" in texts


def test_replies_stand_side_by_side_once(page: str) -> None:
    assert page.count('<h4 class="prompt">Why is the sky blue?</h4>') == 1
    answers = page[page.index("Sample answers") : page.index("How do I boil an egg?")]
    assert answers.count("<p>Light scatters.</p>") == 1 and answers.count("<p>Light is scattered.</p>") == 6
    neighbours = page[page.index("Nearest neighbours") :]
    for number in range(3):
        assert neighbours.count(f"0.71 By the sea, at pier {number}.\n0.40 A boat came") == 1
        assert neighbours.count(f"0.69 A boat, {number}.\n0.42 By the sea.") == 1


def test_an_invalid_number_is_struck_and_explained(page: str) -> None:
    assert re.search(r'<span class="mark-invalid">✗</span> <s>412</s><sup>\d</sup>', page)
    assert "latency and memory: invalid: impossible: 412 tok/s is above" in page
    assert re.search(r'<span class="mark-suspect">≈</span> 154<sup>\d</sup>', page)
    assert not re.search(r"<td[^>]*>412", page)


@pytest.fixture(scope="session")
def clean(measured: list[Measurement]) -> Page:
    """The report of lines in which every field that :func:`_plant` fills has a word."""
    known = [
        line.model_copy(update={"per_op": _account("word"), "energy": _energy("word")}) for line in measured
    ]
    return Page(render_report(known))


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_in_every_field_is_inert(measured: list[Measurement], clean: Page, hostile: str) -> None:
    parsed = Page(render_report([_plant(line, hostile) for line in measured]))
    assert parsed.tags <= clean.tags
    assert parsed.attributes <= clean.attributes
    assert all(link.startswith("#m") for link in parsed.links)
    assert any(printable(hostile) in text for text in parsed.texts)
    assert not [one for text in parsed.texts for one in text if unicodedata.category(one) == "Cf"]


def _account(text: str) -> dict[str, Any]:
    """An account of one node whose names are all ``text``."""
    kernels = [Kernel(f"{text}.0.{text}", text, "", 1.0, run) for run in (1, 2)]
    phases = accounts([kernels], GraphFile(), 1, {text: [2.0], "decode": [2.0]})
    return {"bandwidth": {"gb_per_second": 1.0}, "phases": with_bandwidth(phases, 1e9)}


def _energy(text: str) -> Energy:
    """One window of energy whose names are all ``text``."""
    window = EnergyWindow(seconds=5, joules=1, units=1, beside={text: 1.0})
    return Energy(
        method=text,
        kind="measured",
        domains=[text],
        beside=[text],
        window_s=5,
        units={text: text},
        turns=[{text: window}],
        reason=text,
        fix=text,
    )


def _plant(line: Measurement, text: str) -> Measurement:
    """The line with ``text`` in every field that holds a free text."""

    def subject(old: Subject) -> Subject:
        layers = [layer | {"name": f"m.{text}.0.{text}", "status": text} for layer in old.layers[:20]]
        changes = {"name": text, "source": text, "scheme": f"{old.scheme}{text}", "layers": layers}
        return old.model_copy(update=changes | {"manifest_sha256": old.manifest_sha256 + text})

    nested = {"cpu": {"model": text, text: text}, "list": [text, {text: text}], "os": text}
    return line.model_copy(
        update={
            "subject": subject(line.subject),
            "baseline": subject(line.baseline) if line.baseline else None,
            "command": text,
            "created_utc": text,
            "tool": {"name": text, "version": text},
            "workload": line.workload | {"text": text, "word_pairs": {text: text}, "length": text},
            "runtime": line.runtime | {"name": text, text: text},
            "device": nested,
            "state": nested,
            "protocol": nested,
            "time_by_op": [{"op": text, "ms": 1.0, "share": 1.0}],
            "per_op": _account(text),
            "energy": _energy(text),
            "answers": [SampleAnswer(prompt=text, original=text, compressed=text)] * len(line.answers),
            "validity": Validity(status="invalid", reasons=[text]),
            "compare": {"verdict": text, "ratio_median": 2.0, "ci95": [1.9, 2.1]},
            "metrics": {
                name: value.model_copy(update={"reason": text}) for name, value in line.metrics.items()
            },
        }
    )


@pytest.mark.parametrize(("count", "last"), [(3, "pi2: "), (6, "3 more")])
def test_the_machines_of_the_page_are_named_or_counted(
    measured: list[Measurement], count: int, last: str
) -> None:
    boards = [
        line.model_copy(update={"device": {"name": f"pi{number}", "cpu": {"model": "Cortex-A76"}}})
        for number in range(count)
        for line in measured
        if line.device
    ]
    head = render_report([*measured, *boards]).partition("</header>")[0]
    assert all(f"pi{number}: Cortex-A76" in head for number in range(3)) and last in head


def test_long_texts_are_cut(measured: list[Measurement]) -> None:
    long = "x" * 100_000
    answers = [SampleAnswer(prompt=long, original=long, compressed=long)] * 20
    changes = {"state": {"note": long}, "command": long, "answers": answers}
    planted = [line.model_copy(update=changes) for line in measured]
    assert len(render_report(planted).encode()) < MOST_BYTES


def test_too_many_runs_are_refused_with_the_way_out(
    measured: list[Measurement], make_subject: MakeSubject
) -> None:
    many = [
        measured[3].model_copy(update={"subject": make_subject(f"W8A8 number {n}", 100)}) for n in range(400)
    ]
    with pytest.raises(InputError, match="more than 300 KB"):
        render_report(many)


def test_a_lone_line_without_numbers_makes_a_page(make_subject: MakeSubject) -> None:
    line = Measurement(subject=make_subject("fp32", 0), workload={"kind": "quality"}, metrics={})
    assert "there is no compressed version to judge" in render_report([line])


def test_writing_refuses_a_file_that_is_no_page_of_ours(tmp_path: Path, measured: list[Measurement]) -> None:
    run, output = tmp_path / "run.jsonl", tmp_path / "deep" / "report.html"
    for line in measured:
        record.append(run, line)
    assert write_report([run], output) == output
    first = output.read_bytes()
    output.write_text("<html>a page of somebody else's</html>")
    with pytest.raises(OutputExists, match="--overwrite"):
        write_report(run, output)
    assert write_report(tmp_path, output, overwrite=True).read_bytes() == first
    assert write_report(run, output).read_bytes() == first  # its own page is made anew
    with pytest.raises(OutputExists, match="is a directory"):
        write_report(run, tmp_path, overwrite=True)
    assert [path.name for path in output.parent.iterdir()] == ["report.html"]


def test_a_page_replaces_no_measurements_and_no_links(tmp_path: Path, measured: list[Measurement]) -> None:
    run, page = tmp_path / "run.jsonl", tmp_path / "report.html"
    record.append(run, measured[0])
    page.symlink_to(run)
    before = run.read_bytes()
    for output, kind in ((run, InputError), (page, OutputExists), (Path("/dev/null"), OutputExists)):
        for runs in (run, tmp_path):
            with pytest.raises(kind):
                write_report(runs, output, overwrite=True)
    assert run.read_bytes() == before and page.is_symlink() and Path("/dev/null").is_char_device()
