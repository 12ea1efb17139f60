"""The second picture of the README: decoding rate, file and memory of five engines on SmolLM2-135M in 4 bits.

    python -m edgepress.docs.generator.engines     # writes docs/engines.svg

Drawn from the committed tables of a Zen 5 processor; each engine has its default cache and two threads.
"""

from .trade_off import ROOT, text

MEASURED = ROOT / "benchmarks/lab/results/peers-decoders.md"
SECTION = "## SmolLM2-135M on an EPYC (Zen 5)"
PICTURE = ROOT / "docs/engines.svg"
# The row of the tables, and the name that the picture gives it.
ENGINES = {
    "edgepress W4, head 8": "edgepress",
    "onnxruntime-genai int4": "onnxruntime-genai",
    "llama.cpp Q4_0": "llama.cpp, Python package",
    "OpenVINO GenAI int4": "OpenVINO GenAI",
    "mistral.rs Q4_0": "mistral.rs",
}
WIDTH, LEFT, ROW, TOP, LONGEST = 760, 200, 34, 40, 320
RATE, MEMORY = "128, 2 t", "peak RSS, MB (2 t)"


def measured() -> dict[str, tuple[float, float]]:
    """Of each engine tokens per second after a prompt of 128 tokens, and MB of peak resident memory."""
    section = MEASURED.read_text(encoding="utf-8").partition(f"{SECTION}\n")[2].partition("\n## ")[0]
    rates = _column(section.partition("### Prefill")[0], RATE)
    memory = _column(section.partition("### Start and memory")[2].partition("\n### ")[0], MEMORY)
    return {name: (rates[row], memory[row]) for row, name in ENGINES.items()}


def _column(part: str, heading: str) -> dict[str, float]:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if "|" in line
    ]
    at = rows[0].index(heading)
    return {row[0]: float(row[at]) for row in rows[2:]}


def picture() -> str:
    """The drawing as SVG."""
    found = measured()
    most, height = max(rate for rate, _ in found.values()), TOP + ROW * len(found) + 8
    drawn = [text(8, 20, "SmolLM2-135M in 4 bits, two threads of a Zen 5: tokens per second · peak memory")]
    for place, (name, (rate, memory)) in enumerate(found.items()):
        y, long = TOP + ROW * place, LONGEST * rate / most
        colour, weight = ("#0b6e4f", "bold") if name == "edgepress" else ("#9aa5ad", "normal")
        drawn.append(text(LEFT - 10, y + 17, name, text_anchor="end", font_weight=weight))
        drawn.append(f'<rect x="{LEFT}" y="{y}" width="{long:.1f}" height="24" fill="{colour}"/>')
        drawn.append(text(LEFT + long + 8, y + 17, f"{rate:.0f} tok/s · {memory:.0f} MB", font_weight=weight))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" font-family="sans-serif" font-size="13" fill="#333" role="img">'
    )
    title = "<title>Tokens per second and memory of five engines on SmolLM2-135M</title>"
    return "\n".join(
        [head, title, f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>', *drawn, "</svg>\n"]
    )


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
