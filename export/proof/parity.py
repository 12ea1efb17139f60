"""Parity: a bundle proves that its graph computes what the checkpoint computes, before anyone sees it.

1. The same anatomy exported in float32 equals torch elementwise, over several batches, lengths and cache
   depths: the graph is right. Of a decoder this is asked of each block, embedding and head alone.
2. The quantized graph equals the fake-quantized torch model: elementwise with float activations (the packed
   codes are right), again block by block; and by KL divergence and top-1 agreement (encoders: cosine) as it
   is shipped, the blocks of a decoder by their distance too.
3. A greedy continuation by the graph as it ships, token by token over the cache, makes torch's choices.

The form of another provider is compared with the CPU's form of the same weights. It runs on the provider
where there is one, and on the CPU where the CPU has the kernels; otherwise its status is "built, not run".

The proof of a decoder graph, block by block: memory holds one block in float32, whatever the model.

First every part alone, then the whole graph as it ships. One torch pass over a few rows serves all of it.

Whether a model that lost much still writes text: how many of its greedy replies end in a loop.

The checkpoint knows how far its last pass left it from the original. Only where that is far are twenty
prompts answered here, by the graph as it ships; ``validate`` puts them beside the original's replies.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...compress.model.anatomy import Anatomy
from ...errors import BundleError, MissingDependency
from ...files.storage import sha256_file
from ...runtime.bundle.graph_sections import DecoderSection, EncoderDecoderSection
from ...runtime.bundle.typed_json import read
from ...runtime.engine.batch_decoder import greedy_replies
from ...runtime.engine.decoder import Decoder
from ...runtime.kernels.library import instructions
from ...runtime.session.session import PROVIDERS, device_of, onnxruntime, open_session
from ...runtime.text.greedy_loops import ends_in_loop
from ...runtime.text.tokenizer import Tokenizer
from ...terminal.progress import ProgressTask
from ..graph.build import GraphPart
from ..graph.forms.providers import NOT_RUN
from ..graph.graph_writer import Opset
from ..job import ExportJob
from .distances import Floats, divergence, gate, log_softmax, rounded
from .encoder_decoder_proof import BUNDLE, Layout, encoder_decoder_steps, prove_encoder_decoder
from .encoder_proof import encoder_steps, form_distance, prove_encoder
from .part_graphs import PartGraphs
from .parts_proof import BATCHES, DEPTHS, LENGTHS, PartsProof
from .proof_text import Ids, token_rows
from .streamed import StreamedModel
from .whole_proof import Continuation, prove_whole

# Mean KL divergence in nats: what half precision and other kernels for 8-bit inputs may cost.
FORM_KL = 0.02
FORM_LENGTH = 96
# For the time left: how many weights of a block take the time of one logit's comparison with torch.
_LOGIT = 480
# Nats of KL divergence from the original; SmolLM2-135M loses 0.1 with 4 bits, 0.4 with 3 and 1.3 with 2.
_MUCH = 0.25
# So large a fraction of the replies ends in a loop: then the text may be lost.
MANY = 0.25


def prove(
    job: ExportJob,
    graph: Path,
    parts: Sequence[tuple[GraphPart, ...]],
    sections: dict[str, Any],
    work: Path,
    opset: Opset,
    layout: Layout = BUNDLE,
) -> dict[str, Any]:
    """The manifest's ``parity`` of ``graph``, an encoder–decoder's with the one beside it, in a ``layout``;
    ``parts`` are those of each; ``work`` is a directory for scratch files.
    """
    text = {"name": "built-in passage"} if job.text is None else {"sha256": sha256_file(job.text)}
    if job.images is not None:
        text = {"name": "built-in images"}
    if job.source.anatomy.hearing is not None:
        text |= {"sounds": "built-in"}
    if job.source.anatomy.kind == "decoder":
        section = read(DecoderSection, sections["decoder"])
        with job.progress.task("proving the graph", decoder_steps(job.source.anatomy)) as task:
            result = prove_decoder(job, graph, parts[0], section, opset, task)
    elif job.source.anatomy.kind == "encoder_decoder":
        both = read(EncoderDecoderSection, sections["encoder_decoder"])
        graphs = (graph, graph.with_name(sections["graph"]["encoder"]))
        with job.progress.task("proving the graphs", encoder_decoder_steps(job.source.anatomy)) as task:
            result = prove_encoder_decoder(job, graphs, (parts[0], parts[1]), both, opset, task, layout)
    else:
        with job.progress.task("proving the graph", encoder_steps(job.source.anatomy)) as task:
            length = int(sections["encoder"]["max_length"])
            result = prove_encoder(job, graph, parts[0], length, opset, task)
    own = sections["graph"]["operators"] == "edgepress"
    ran = {"operators": sections["graph"]["operators"], "instructions": instructions() if own else None}
    return {"status": "passed", "text": text, "ran": ran, **result}


def prove_form(
    job: ExportJob, graph: Path, cpu_graph: Path, sections: dict[str, Any], cpu_sections: dict[str, Any]
) -> dict[str, Any]:
    """For the manifest: ``status`` and ``why``, and the divergence from the CPU's form wherever it ran."""
    name = PROVIDERS[job.form.name]
    here = name in onnxruntime().get_available_providers()
    found: dict[str, Any] = {
        "provider": job.form.name,
        "status": "run here" if here else NOT_RUN,
        "why": "" if here else f"{name} is not on the machine that made it",
    }
    compare = _comparison(job, graph, cpu_graph, sections, cpu_sections)
    for provider in ("cpu", *([job.form.name] if here else [])):
        try:
            found[provider] = compare(provider)
        except MissingDependency:  # a runtime may have what its machine has no device or no libraries for
            found |= {"status": NOT_RUN, "why": f"{name} did not start on the machine that made it"}
    return found


def _comparison(
    job: ExportJob, graph: Path, cpu_graph: Path, sections: dict[str, Any], cpu_sections: dict[str, Any]
) -> Callable[[str], dict[str, Any]]:
    """What runs ``graph`` with a provider, and gives its distance from the CPU's form."""
    if job.source.anatomy.kind != "decoder":
        length, cpu = int(sections["encoder"]["max_length"]), open_session(cpu_graph)
        return lambda provider: form_distance(
            job, open_session(graph, provider=provider), cpu, length, provider
        )
    section = read(DecoderSection, cpu_sections["decoder"])
    length = min(FORM_LENGTH, section.context_length)
    ids = token_rows(job.path, job.text, 1, length, section.vocab_size)
    reference = Decoder(open_session(cpu_graph), section).logits(ids)
    section = read(DecoderSection, sections["decoder"])
    return lambda provider: _compared(graph, section, provider, ids, reference)


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
    gate(f"the mean KL divergence of the graph on {provider} from the CPU's form", mean, FORM_KL)
    agreement = (reference[0].argmax(-1) == logits[0].argmax(-1)).mean()
    return {"kl_mean": rounded(mean), "top1_agreement": rounded(float(agreement)), "bound": FORM_KL}


def decoder_steps(anatomy: Anatomy) -> float:
    """How far :func:`prove_decoder` advances its task: about one for each block, and one at either end."""
    return len(anatomy.blocks) + 2 + sum(_whole_steps(anatomy))


def _whole_steps(anatomy: Anatomy) -> tuple[float, float]:
    """What the whole graph costs in blocks: its continuation before the parts, and its logits after them."""
    count = len(anatomy.blocks)
    weights = sum(one.out_features * one.in_features for one in anatomy.linears()) / count
    return count / 7, count / 6 + _LOGIT * anatomy.vocab_size / weights


def prove_decoder(
    job: ExportJob,
    graph: Path,
    parts: tuple[GraphPart, ...],
    section: DecoderSection,
    opset: Opset,
    task: ProgressTask,
) -> dict[str, Any]:
    """Compare ``graph``, which consists of ``parts``, with torch; returns the differences for the manifest.

    ``task`` advances by :func:`decoder_steps`.
    """
    before, after = _whole_steps(job.source.anatomy)
    length = min(max(LENGTHS) + max(DEPTHS), section.context_length)
    rows = token_rows(job.path, job.text, max(BATCHES), length, section.vocab_size)
    continued = Continuation.of(graph, section, rows[0], task, before)
    ids = np.concatenate([rows, continued.row(length)])
    model = StreamedModel(job.source, job.kv_dtype)
    proof = PartsProof(model, PartGraphs(job, graph, parts, opset), ids, rounds=job.rounds)
    last = proof.run(task)
    task.advance(0, "whole graph")
    whole = prove_whole(graph, model, ids, continued, last, rounds=job.rounds)
    task.advance(after)
    found = {**proof.found(), "greedy": whole.pop("greedy")}
    replies = replies_of(job, graph, section)
    if replies is not None:
        found["replies"] = replies
    name = "quantized" if job.rounds else "float"
    return {**found, name: found.get(name, {}) | whole}


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
