"""Whether a model that lost much still writes text: how many of its greedy replies end in a loop.

The checkpoint knows how far its last pass left it from the original. Only where that is far are twenty
prompts answered here, by the graph as it ships; ``validate`` puts them beside the original's replies.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...runtime.bundle.graph_sections import DecoderSection
from ...runtime.engine.greedy_replies import greedy_replies
from ...runtime.session.session import open_session
from ...runtime.text.greedy_loops import ends_in_loop
from ...runtime.text.tokenizer import Tokenizer
from ..job import ExportJob

# Nats of KL divergence from the original; SmolLM2-135M loses 0.1 with 4 bits, 0.4 with 3 and 1.3 with 2.
_MUCH = 0.25
# So large a fraction of the replies ends in a loop: then the text may be lost.
MANY = 0.25


def replies_of(job: ExportJob, graph: Path, section: DecoderSection) -> dict[str, Any] | None:
    """For the manifest: how many prompts were answered by ``graph``, how many replies end in a loop, and the
    divergence that was the reason to ask; None where little was lost, and where the prompts do not fit.
    """
    kl = _divergence(job.made)
    if kl < _MUCH:
        return None
    replies = greedy_replies(open_session(graph), section, Tokenizer.open(job.path))
    loops = sum(map(ends_in_loop, replies))
    return {"prompts": len(replies), "loops": loops, "kl": kl} if replies else None


def lost_text(parity: dict[str, Any]) -> str:
    """A sentence where many replies end in a loop, else empty."""
    found = parity.get("replies")
    if not found or found["loops"] < MANY * found["prompts"]:
        return ""
    return (
        f"{found['loops']} of {found['prompts']} greedy replies end in a loop: with a KL of "
        f"{found['kl']:.2g} to the original its text may be lost; edgepress validate compares both"
    )


def _divergence(made: dict[str, Any]) -> float:
    """Of the checkpoint from what it was made of, after its last pass that was measured."""
    damages = [step.get("damage") or {} for step in made.get("steps", [])]
    return float(next((damage["kl"] for damage in reversed(damages) if "kl" in damage), 0.0))
