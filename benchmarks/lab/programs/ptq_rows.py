"""The recipes of post-training quantization that are compared on one model: widths, formats, budgets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Budgets in bits a weight, and the uniform schemes of about that size, scales counted.
ALLOCATED = {3.0: ("W2A16-g16", "W3A16-channel"), 3.5: ("W3A16-g32",), 4.0: ("W3A16-g16", "W4A16-channel")}

Pass = dict[str, Any]


def methods(scheme: str) -> dict[str, list[Pass]]:
    """The recipes that are compared at one scheme, by name."""
    gptq = {"pass": "gptq", "scheme": scheme}
    refined = {**gptq, "refinements": 2}
    learned = {"pass": "autoround", "scheme": scheme, "iterations": 20}
    tune = {"pass": "tune"}
    return {
        "hqq": [{"pass": "hqq", "scheme": scheme.replace("A16", "A16_ASYM"), "power": 2}],
        "gptq": [gptq],
        "gptq-refined": [refined],
        "gptq-tune": [refined, tune],
        "rotate-gptq": [{"pass": "rotate"}, refined],
        "gptq-corrected": [{**refined, "correction": 1}],
        "awq-gptq-tune": folded(scheme),
        "awq-corrected": folded(scheme, {**refined, "correction": 1})[:2],
        "awq-corrected-tune": folded(scheme, {**refined, "correction": 1}),
        "corrected-tune": [{**refined, "correction": 1}, {**tune, "epochs": 4}],
        "autoround": [learned],
        "autoround-mse": [{**learned, "loss": "mse"}],
        "gptq-autoround": [refined, learned],
        "gptq-autoround-tune": [refined, learned, tune],
        "autoround-tune": [learned, tune],
        "awq-autoround-tune": [{"pass": "awq", "scheme": scheme, "quantize": False}, learned, tune],
        "rotate-autoround-tune": [{"pass": "rotate"}, learned, tune],
        "learned-autoround-tune": [{"pass": "rotate", "learn": scheme}, learned, tune],
        "best": [{**learned, "iterations": 100}, {**tune, "epochs": 4}],
    }


def eight_bits() -> dict[str, list[Pass]]:
    """The recipes for int8 weights and activations, by name."""
    smooth = {"pass": "smoothquant", "quantize": False}
    gptq = {"pass": "gptq", "scheme": "W8A8"}
    corrected = {**gptq, "correction": 1}
    rotate = {"pass": "rotate"}
    # What down reads has the largest outliers: its inputs stay in float.
    weights_only: Pass = {"pass": "gptq", "scheme": "W8A16", "targets": ["down"]}
    spared: list[Pass] = [smooth, {**gptq, "ignore": ["down"]}, weights_only]
    return {
        "w8a8-rtn": [{"pass": "w8a8"}],
        "w8a8-smoothquant": [{"pass": "smoothquant"}],
        "w8a8-smooth-gptq": [smooth, gptq],
        "w8a8-rotate-gptq": [rotate, gptq],
        "w8a8-rotate-smooth-gptq": [rotate, smooth, gptq],
        "w8a8-smooth-gptq-tune": [smooth, gptq, {"pass": "tune", "epochs": 4}],
        "w8a8-rotate-smooth-gptq-tune": [rotate, smooth, gptq, {"pass": "tune", "epochs": 4}],
        "w8a8-corrected": [corrected],
        "w8a8-smooth-corrected": [smooth, corrected],
        "w8a8-rotate-smooth-corrected": [rotate, smooth, corrected],
        "w8a8-smooth-corrected-tune": [smooth, corrected, {"pass": "tune", "epochs": 4}],
        "w8a8-down16": spared,
        "w8a8-down16-tune": [*spared, {"pass": "tune", "epochs": 4}],
    }


def float_formats() -> dict[str, list[Pass]]:
    """FP8, MXFP4 and NVFP4, of weights alone and of activations too, by name."""
    found: dict[str, list[Pass]] = {}
    for scheme in ("FP8_DYNAMIC", "NVFP4A16", "MXFP4A16", "NVFP4", "MXFP4"):
        found[scheme.lower().replace("_", "-")] = [{"pass": "rtn", "scheme": scheme}]
    for scheme in ("NVFP4", "MXFP4"):
        last: Pass = {"pass": "rtn", "scheme": scheme}
        found[f"rotate-{scheme.lower()}"] = [{"pass": "rotate"}, last]
        found[f"learned-{scheme.lower()}"] = [{"pass": "rotate", "learn": scheme}, last]
    return found


def folded(scheme: str, rounding: Pass | None = None) -> list[Pass]:
    """Scales folded by AWQ, a ``rounding`` (GPTQ where none is given), and training of what is not a code."""
    rounding = rounding or {"pass": "gptq", "scheme": scheme, "refinements": 2}
    return [{"pass": "awq", "scheme": scheme, "quantize": False}, rounding, {"pass": "tune", "epochs": 4}]


def allocated(bits: float) -> dict[str, list[Pass]]:
    """The recipes that give each layer a width of its own within a budget, by name."""
    gptq = {"pass": "gptq", "refinements": 2}
    allocate = {"pass": "allocate", "bits": bits, "using": gptq}
    folding = "W3A16-g64" if bits < 4 else "W4A16-g64"
    return {"allocate-gptq": [allocate], "allocate-awq-gptq-tune": folded(folding, allocate)}


@dataclass(frozen=True, eq=False)
class Row:
    """One row: its name is that of its files."""

    name: str
    passes: list[Pass]

    @property
    def label(self) -> str:
        """What the table shows: the passes with the options that are not their own default."""
        parts = []
        for entry in self.passes:
            options = ", ".join(f"{key} {value}" for key, value in entry.items() if key != "pass")
            parts.append(f"{entry['pass']} ({options})" if options else str(entry["pass"]))
        return " → ".join(parts)


def rows() -> list[Row]:
    """All rows: 8 bits and float formats, then integers, the widest first, then budgets."""
    found = [Row(name, passes) for name, passes in (eight_bits() | float_formats()).items()]
    for bits in (4, 3, 2):
        scheme = f"W{bits}A16-g64"
        found += [Row(f"w{bits}-{name}", passes) for name, passes in methods(scheme).items()]
    for budget, uniform in ALLOCATED.items():
        found += [Row(f"{budget:g}-bits-{name}", passes) for name, passes in allocated(budget).items()]
        found += [Row(f"{budget:g}-bits-{scheme.lower()}", folded(scheme)) for scheme in uniform]
    return found
