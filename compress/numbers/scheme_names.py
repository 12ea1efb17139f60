"""What people call schemes: any case, dashes for underscores, and the names that other tools made known."""

import re

# What other tools call a scheme that is one here. Q4_0, Q5_0 and Q8_0 are GGUF's own groups of 32.
_ALIASES = {
    "INT4": "W4A16",
    "INT8": "W8A8",
    **{f"Q{bits}_0": f"W{bits}A16-g32" for bits in (4, 5, 8)},
}
_GROUP = re.compile(r"-(G\d+|CHANNEL)$")
_GGUF = re.compile(r"I?Q\d")


def canonical(name: str) -> str:
    """``name`` as schemes are written: ``w4a16-asym-G64`` is ``W4A16_ASYM-g64``, ``int4`` is ``W4A16``."""
    upper = name.strip().upper()
    found = _GROUP.search(upper)
    group = found[0].lower() if found else ""
    head = upper.removesuffix(found[0] if found else "").replace("-", "_")
    known = _ALIASES.get(head, head)
    return known + group


def way_out(name: str) -> str:
    """What to take for a scheme of another tool that is none here; empty where the name says nothing."""
    upper = name.strip().upper()
    if upper in ("NF4", "FP4"):
        return (
            f"{upper} is bitsandbytes' own: take W4A16 (4-bit integers, for CPUs), "
            "or NVFP4A16 (4-bit floats, for vLLM)"
        )
    if upper in ("GPTQ", "AWQ", "RTN", "HQQ", "AUTOROUND", "SMOOTHQUANT"):
        return f"{upper.lower()} is a way to round: take W4A16, which is GPTQ with --text, or a recipe (-r)"
    if upper.startswith("TQ"):
        return f"{upper} is llama.cpp's own: take the pass `ternary`, which GGUF exports write so"
    if _GGUF.match(upper):
        return (
            f"{upper} is llama.cpp's own: take Q2_K to Q6_K, IQ4_NL, Q4_0 (W4A16-g32), Q5_0 or Q8_0 "
            "(W8A16-g32), which `edgepress export --format gguf` writes as such"
        )
    return ""
