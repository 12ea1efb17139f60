"""The results of a comparison of decoders: rates, start and memory, and the bars, from its raw lines."""

from collections.abc import Sequence
from statistics import median

from .bars import bars
from .lines import DecoderComparison

REFERENCE = ("torch_eager", "float32")

Rows = Sequence[Sequence[str]]


def section(found: DecoderComparison, title: str) -> str:
    """The section of a page as Markdown, below the heading ``title``."""
    parts = [
        f"## {title}",
        "### Decode, tokens per second",
        _rates(found, "decode"),
        "### Prefill, tokens per second",
        _rates(found, "prefill"),
        "### Start and memory",
        _start(found),
        "### Bars",
        _bars(found),
        *_failures(found),
        "\n".join(f"- {note}" for note in _circumstances(found)),
    ]
    return "\n\n".join(parts) + "\n"


def table(header: Sequence[str], rows: Rows) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in cells)])


def shown(value: float | None, digits: int = 0) -> str:
    """A number; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def _rates(found: DecoderComparison, phase: str) -> str:
    settings = [(threads, length) for length in found.prompt_lengths for threads in found.threads]
    header = ["engine", "bits", "head", *(f"{length}, {threads} t" for threads, length in settings)]
    rows = []
    for key in found.keys:
        rates = [found.rate(phase, key, threads, length) for threads, length in settings]
        if any(rate is not None for rate in rates):
            rows.append([found.label(key), *map(str, found.bits(key)), *map(shown, rates)])
    return table(header, rows)


def _start(found: DecoderComparison) -> str:
    header = ["engine", "artifact MB"]
    columns = {"first_token_s": "first token, s", "load_s": "load, s", "peak_rss_bytes": "peak RSS, MB"}
    header += [f"{name} ({threads} t)" for name in columns.values() for threads in found.threads]
    header.append("tokens as float32")
    rows = []
    for key in found.keys:
        numbers = [(name, found.value(name, key, threads)) for name in columns for threads in found.threads]
        if not any(value is not None for _, value in numbers):
            continue
        sizes = [found.value("artifact_bytes", key, threads) for threads in found.threads]
        size = next((value / 1e6 for value in sizes if value is not None), None)
        cells = [_megabytes(v) if name == "peak_rss_bytes" else shown(v, 2) for name, v in numbers]
        rows.append([found.label(key), shown(size), *cells, _agreement(found, key)])
    return table(header, rows)


def _agreement(found: DecoderComparison, key: tuple[str, str]) -> str:
    """How many tokens came out as torch's in float32 before the first other one."""
    mine, reference = found.tokens(key), found.tokens(REFERENCE)
    if mine is None or reference is None:
        return "–"
    pairs = zip(mine, reference, strict=False)
    return str(next((index for index, (one, other) in enumerate(pairs) if one != other), len(reference)))


def _megabytes(value: float | None) -> str:
    return shown(None if value is None else value / 1e6)


def _bars(found: DecoderComparison) -> str:
    rows = [
        [bar.name, bar.where, bar.ours, bar.peer, shown(bar.ratio, 2), f"{bar.target:g}", bar.verdict]
        for bar in bars(found)
    ]
    return table(["bar", "setting", "ours", "best peer", "ratio", "target", "verdict"], rows)


def _failures(found: DecoderComparison) -> list[str]:
    failed = {(result.label, result.error) for result in found.results if result.error}
    if not failed:
        return []
    return ["### What could not run", table(["engine", "error"], sorted(failed))]


def _circumstances(found: DecoderComparison) -> list[str]:
    run, settings = found.run, found.run.settings
    measured = {
        count: [line.bandwidth[count] / 1e9 for line in found.rounds if count in line.bandwidth]
        for count in found.threads
    }
    rates = [
        f"{median(each):.1f} GB/s at {count} threads (from {min(each):.1f} to {max(each):.1f})"
        for count, each in measured.items()
        if each
    ]
    versions: dict[str, str] = {}
    for result in found.results:
        versions |= result.versions
    return [
        f"Greedy, batch 1, {settings.get('new_tokens')} new tokens; medians over {len(found.rounds)} "
        f"rounds with {settings.get('passes')} in each, engines interleaved, each in a fresh process (torch: "
        "one round, 32 new tokens); columns are prompt tokens and threads (t). Prefill ends when the first "
        "token is chosen. Peak RSS is of the whole process with all prompts; the first token is that of the "
        "shortest prompt, with the files in the page cache as a first read leaves them, and every engine "
        "loads its tokenizer before it.",
        "Key/value caches: edgepress and onnxruntime-genai float32, or what the label says; llama.cpp and "
        "mistral.rs float16, OpenVINO uint8, their defaults. edgepress keeps nothing on the disk but the "
        "bundle.",
        "Tokens as float32: greedy tokens identical to torch's in float32 before the first difference; a "
        "wrongly converted model has none, a quantized one some.",
        "A ratio is ours over the best peer's, or its inverse where less is better; met: at least 1, or the "
        "target.",
        f"Memory bandwidth in the same run: {', '.join(rates) or 'not measured'}; our share of it is "
        "the median over rounds.",
        f"Intervals of rates wider than 5 % to either side after {len(found.rounds)} rounds: "
        f"{'; '.join(found.wide()) or 'none'}.",
        f"Disturbances: {'; '.join(found.disturbances) or 'none'}.",
        f"Versions: {', '.join(f'{name} {number}' for name, number in sorted(versions.items()))}.",
        f"Machine: {run.machine.get('line', '')}",
        f"Command: `{run.command}`",
        f"Date: {run.date}",
    ]
