"""Parity: a bundle proves that its graph computes what the checkpoint computes, before anyone sees it.

1. The same anatomy exported in float32 equals torch elementwise, over several batches, lengths and cache
   depths: the graph is right.
2. The quantized graph equals the fake-quantized torch model: elementwise with float activations (the packed
   codes are right), and by KL divergence and top-1 agreement (encoders: cosine) as it is shipped.
3. A greedy continuation, token by token over the cache, makes torch's choices.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...runtime.bundle.manifest import DecoderSection
from ...runtime.bundle.typed_json import read
from ...storage import sha256_file
from ..graph.opset import Opset
from ..job import ExportJob
from .decoder_proof import STEPS as DECODER_STEPS
from .decoder_proof import prove_decoder
from .encoder_proof import STEPS as ENCODER_STEPS
from .encoder_proof import prove_encoder


def prove(job: ExportJob, graph: Path, sections: dict[str, Any], work: Path, opset: Opset) -> dict[str, Any]:
    """What the manifest says under ``parity``; ``work`` is a directory for scratch files.

    Raises:
        GateFailed: a difference beyond its bound.
    """
    text = {"name": "built-in passage"} if job.text is None else {"sha256": sha256_file(job.text)}
    if job.source.anatomy.kind == "decoder":
        section = read(DecoderSection, sections["decoder"])
        with job.progress.task("proving the graph", DECODER_STEPS) as task:
            result = prove_decoder(job, graph, section, work, opset, task)
    else:
        with job.progress.task("proving the graph", ENCODER_STEPS) as task:
            length = int(sections["encoder"]["max_length"])
            result = prove_encoder(job, graph, length, work, opset, task)
    return {"status": "passed", "text": text, **result}
