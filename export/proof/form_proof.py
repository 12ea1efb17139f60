"""The proof of a provider's form: its logits beside those of the CPU's form of the same weights.

It runs on the provider where there is one, and on the CPU where the CPU has the kernels; what has not run is
said to be built, not run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import BundleError
from ...runtime.bundle.manifest import DecoderSection
from ...runtime.bundle.typed_json import read
from ...runtime.engine.decoder import Decoder
from ...runtime.session.session import PROVIDERS, device_of, onnxruntime, open_session
from ..graph.forms.providers import NOT_RUN
from ..job import ExportJob
from .bounds import gate, rounded
from .distributions import Floats, divergence, log_softmax
from .tokens import Ids
from .tokens import rows as token_rows

# Mean KL divergence in nats: what half precision and other kernels for 8-bit inputs may cost.
KL = 0.02
LENGTH = 96


def prove_form(
    job: ExportJob, graph: Path, cpu_graph: Path, sections: dict[str, Any], cpu_sections: dict[str, Any]
) -> dict[str, Any]:
    """For the manifest: ``status`` and ``why``, and the divergence from the CPU's form wherever it ran.

    Raises:
        GateFailed: the form computes something else.
    """
    section = read(DecoderSection, cpu_sections["decoder"])
    length = min(LENGTH, section.context_length)
    ids = token_rows(job.path, job.text, 1, length, section.vocab_size)
    reference = Decoder(open_session(cpu_graph), section).logits(ids)
    name = PROVIDERS[job.form.name]
    here = name in onnxruntime().get_available_providers()
    found: dict[str, Any] = {
        "provider": job.form.name,
        "status": "run here" if here else NOT_RUN,
        "why": "" if here else f"{name} is not on the machine that made it",
    }
    section = read(DecoderSection, sections["decoder"])
    for provider in ("cpu", *([job.form.name] if here else [])):
        found[provider] = _compared(graph, section, provider, ids, reference)
    return found


def _compared(
    graph: Path, section: DecoderSection, provider: str, ids: Ids, reference: Floats
) -> dict[str, Any]:
    try:
        session = open_session(graph, provider=provider)
        logits = Decoder(session, section, device=device_of(provider)).logits(ids)
    except BundleError as error:
        if provider != "cpu":
            raise
        return {"not_run": error.why[:200]}
    divergences = divergence(log_softmax(reference[0]), log_softmax(logits[0]))
    mean = float(divergences.mean())
    gate(f"the mean KL divergence of the graph on {provider} from the CPU's form", mean, KL)
    agreement = (reference[0].argmax(-1) == logits[0].argmax(-1)).mean()
    return {"kl_mean": rounded(mean), "top1_agreement": rounded(float(agreement)), "bound": KL}
