"""The ``onnx`` format: one fused graph for ONNX Runtime, weights quantized inside it, in a bundle that the
runtime reads, and for a decoder onnxruntime-genai too; of an encoder–decoder a graph for each stack. What no
ONNX graph holds is refused before writing.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...compress.numbers.scheme import runs_on
from ...errors import InputError
from ...runtime.kernels.library import require_library, why_missing
from ..bundle_manifest import decoder_section, encoder_decoder_section, encoder_section
from ..format import ExportFormat, OutputKind, Prepared
from ..graph.attention.cache_io import FLOAT
from ..graph.build import GraphPart, WeightView
from ..graph.encoder_decoder_graph import Stack
from ..graph.forms.providers import CPU
from ..graph.graph_writer import OWN_DOMAIN, Kind, Opset, installed_runtime, opset_for
from ..graph.whole_graph import BuiltGraph, build_graph, save_graph
from ..job import ExportJob
from ..proof.parity import prove, prove_form
from ._genai import write_genai

GRAPH, ENCODER_GRAPH = "model.onnx", "encoder.onnx"


@dataclass(frozen=True)
class PreparedOnnx(Prepared):
    """A graph that is known to be expressible, and the operator set that it is written in; of an
    encoder–decoder also its encoder's.
    """

    graph: BuiltGraph
    opset: Opset
    encoder: BuiltGraph | None = None

    @property
    def graphs(self) -> list[BuiltGraph]:
        """Both, or the one that there is."""
        return [self.graph, *([] if self.encoder is None else [self.encoder])]

    @property
    def parts(self) -> list[tuple[GraphPart, ...]]:
        """What each of the graphs is put together of."""
        return [graph.parts for graph in self.graphs]


class OnnxFormat:
    """A bundle: ``model.onnx``, beside a decoder of standard operators also what onnxruntime-genai needs."""

    kind: OutputKind = "bundle"
    graph = True
    encoder_decoders = True

    def opened_by(self, job: ExportJob) -> None:
        """Nobody else: edgepress's own runtime."""

    def prepare(self, job: ExportJob, *, validate: bool) -> PreparedOnnx:
        """Build the graph in memory, without weights."""
        job.prompts.check_pooled(job.path, job.progress)
        return prepare_graphs(job, ("decoder", "encoder"), validate=validate)

    def write(self, job: ExportJob, prepared: PreparedOnnx, directory: Path) -> dict[str, Any]:
        """Write all graphs and their weights."""
        sections = write_graph(job, prepared, directory / GRAPH)
        if "decoder" in sections and job.form.standard and job.source.anatomy.attends:
            write_genai(directory / GRAPH, job.source.anatomy, sections["decoder"])
        return sections

    def check(
        self, job: ExportJob, prepared: PreparedOnnx, directory: Path, sections: dict[str, Any], work: Path
    ) -> dict[str, Any]:
        """Prove the written graph against torch. The form of another provider is compared with that of the
        CPU, which is proven.
        """
        if job.form.built:
            return prove(job, directory / GRAPH, prepared.parts, sections, work, prepared.opset)
        twin = replace(job, form=CPU, kv_dtype=FLOAT)
        folder = work / "cpu"
        folder.mkdir(parents=True)
        built = self.prepare(twin, validate=False)
        written = write_graph(twin, built, folder / GRAPH)
        parity = prove(twin, folder / GRAPH, built.parts, written, work, prepared.opset)
        return {**parity, "form": prove_form(job, directory / GRAPH, folder / GRAPH, sections, written)}


def prepare_graphs(job: ExportJob, stacks: tuple[Stack, Stack], *, validate: bool) -> PreparedOnnx:
    """The graph, of an encoder–decoder those of its ``stacks``, the decoder's first; raises what
    :meth:`OnnxFormat.prepare` does.
    """
    check_numbers(job)
    check_form(job)
    kind: Kind = "decoder" if job.source.anatomy.kind == "decoder" else "encoder"
    opset = opset_for(installed_runtime(), kind)

    def built(stack: Stack) -> BuiltGraph:
        view = WeightView(job.source, as_float=job.as_float, kv_dtype=job.kv_dtype)
        return build_graph(view, opset, job.pooling, job.form, stack)

    built_of = stacks if job.source.anatomy.kind == "encoder_decoder" else stacks[:1]
    graph, *others = (built(stack) for stack in built_of)
    if OWN_DOMAIN in graph.model.graph.opset_imports:
        require_library("a graph of edgepress's own operators")
    needed = graph.nbytes + sum(one.nbytes for one in others)
    if validate and not job.form.built:
        needed += build_graph(WeightView(job.source), opset, job.pooling).nbytes
    return PreparedOnnx(needed, graph, opset, next(iter(others), None))


def write_graph(
    job: ExportJob, prepared: PreparedOnnx, path: Path, data: str = ".data", encoder: str = ENCODER_GRAPH
) -> dict[str, Any]:
    """Write the graph ``path`` and its weights, large ones to ``path`` + ``data``, and of an encoder–decoder
    the ``encoder`` beside it; returns the sections about them.
    """
    built, kind = prepared.graph, job.source.anatomy.kind
    for one, place in zip(prepared.graphs, (path, path.with_name(encoder)), strict=False):
        with job.progress.task(f"writing {place.name}", one.nbytes) as task:
            save_graph(one.model, place, one.nbytes, task, data)
    section = (
        decoder_section(job)
        if kind == "decoder"
        else encoder_decoder_section(job)
        if kind == "encoder_decoder"
        else encoder_section(job, built.inputs)
    )
    own = OWN_DOMAIN in built.model.graph.opset_imports
    return {
        kind: section,
        "graph": {
            "file": path.name,
            **({} if prepared.encoder is None else {"encoder": encoder}),
            "opset": built.model.graph.opset_imports[""],
            "ir_version": built.model.ir_version,
            "provider": job.form.describe(),
            "operators": "edgepress" if own else "standard",
            "runs_in": _runs_in(job, own=own),
            "notes": sorted({note for one in prepared.graphs for note in one.notes}),
        },
        "weights": {
            "bytes": sum(one.nbytes for one in prepared.graphs),
            "bytes_per_token": None if kind == "encoder" else built.bytes_per_token,
        },
    }


def _runs_in(job: ExportJob, *, own: bool) -> str:
    """For manifest, card and user: what opens the bundle."""
    if own:
        return (
            "edgepress alone; for ONNX Runtime, onnxruntime-genai, node and browsers, export the checkpoint "
            "with --for standard"
        )
    why = why_missing() if job.form.standard else ""
    return "any client of ONNX Runtime" + (f"; edgepress's own operators are not here: {why}" if why else "")


FORMAT: ExportFormat[PreparedOnnx] = OnnxFormat()


def check_numbers(job: ExportJob) -> None:
    """Refuse layers in FP8, MXFP4, NVFP4 or a type of GGUF, and trellis grids in a standard graph, unless
    they are exported in float.
    """
    own = job.form.linears == "tiles"
    schemes = set(job.source.schemes.values())
    floats = {one for one in schemes if one.format != "int" and not (own and one.of_trellis)}
    if not floats or job.as_float:
        return
    names = ", ".join(sorted(scheme.name for scheme in floats))
    if any(scheme.of_gguf for scheme in floats):
        raise InputError(f"{job.name} holds {names}, which ONNX Runtime does not know", fix="export to gguf")
    if trellis := sorted(scheme.bits for scheme in floats if scheme.of_trellis):
        nearest = " or ".join(f"W{max(bits, 4)}A16-g32" for bits in dict.fromkeys(trellis))
        raise InputError(
            f"{job.name} holds {names}, which edgepress's own operators alone read",
            fix=f"export it with --provider cpu and without --for, or compress the model with {nearest}",
        )
    raise InputError(
        f"{job.name} holds {names}, which ONNX Runtime has no kernels for",
        why="; ".join(runs_on(floats)),
        fix=f"serve the checkpoint itself, as in `vllm serve {job.path}`, or compress the model with W4A16 "
        "or W8A8 for ONNX",
    )


def check_form(job: ExportJob) -> None:
    """Refuse what has no form but the CPU's, before anything is written."""
    source, form = job.source, job.form
    if form.built:
        return
    integer = any(scheme.activations for scheme in source.schemes.values())
    encodes = source.anatomy.kind == "encoder"
    if source.anatomy.kind == "encoder_decoder":
        why = "the graphs of encoder–decoders are written for the CPU only"
    elif encodes and (form.dtype, form.linears) != ("float32", "qdq"):
        why = "the graphs of encoders are written for the CPU and OpenVINO only"
    elif source.anatomy.has_experts:
        why = "the graphs of mixtures of experts are written for the CPU only"
    elif not source.anatomy.attends and not encodes:
        why = "the graphs of models with blocks that do not attend are written for the CPU only"
    elif integer and not job.as_float:
        why = "integer products of rounded activations are written for the CPU only"
    elif not encodes and job.kv_dtype != form.dtype:
        why = f"its cache is {form.dtype}, and another is written for the CPU only"
    else:
        return
    raise InputError(
        f"{job.name} cannot be exported for {form.name}",
        why=why,
        fix="export it with --provider cpu, or a model of which only the weights are compressed (W4A16)",
    )
