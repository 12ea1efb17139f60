"""The ``onnx_hub`` format: ONNX in the layout of model hubs, where transformers.js, optimum and
sentence-transformers look for it: the graph of standard operators in ``onnx/``, the rest beside that folder.
Its embedding is looked up by operators of ONNX alone, which every build for browsers has.

The graph's name says its numbers: ``model_q4.onnx`` with weights of 4 bits, ``model_quantized.onnx`` of 8,
else ``model.onnx``; large weights are in ``NAME_data``. Of an encoder–decoder there are two graphs,
``encoder_model….onnx`` and ``decoder_model_merged….onnx``.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...compress.model.anatomy import Anatomy
from ...errors import InputError
from ...files.storage import read_json, write_json
from ...runtime.text.tokenizer import chat_template_of
from ..format import ExportFormat, OpenedBy, OutputKind
from ..graph.attention.cache_io import FLOAT
from ..graph.forms.providers import CPU, provider_form
from ..graph.forms.standard import to_plain_rows
from ..job import ExportJob
from ..proof.hub_driver import HUB
from ..proof.parity import prove
from .onnx import PreparedOnnx, prepare_graphs, write_graph

FOLDER = "onnx"
_DATA = "_data"
_EXTRACTOR = "preprocessor_config.json"
_NEW_CLASS, _OLD_CLASS = "TokenizersBackend", "PreTrainedTokenizerFast"  # of tokenizers without a class
# By bits of the weights: the end of the graph's name, and what transformers.js calls such numbers.
_NUMBERS = {4: ("_q4", "q4"), 8: ("_quantized", "q8")}
_FLOAT = ("", "fp32")
# How transformers.js is asked, by what it exports, and optimum's class.
_ASKED = {
    "decoder": ("pipeline", 'pipeline("text-generation", "DIRECTORY", OPTIONS)', "ORTModelForCausalLM"),
    "encoder": (
        *("pipeline", 'pipeline("feature-extraction", "DIRECTORY", OPTIONS)'),
        "ORTModelForFeatureExtraction",
    ),
    "other encoder": (
        *("AutoModel", 'AutoModel.from_pretrained("DIRECTORY", OPTIONS)'),
        "ORTModelForCustomTasks",
    ),
    "encoder_decoder": (
        *("pipeline", 'pipeline("text2text-generation", "DIRECTORY", OPTIONS)'),
        "ORTModelForSeq2SeqLM",
    ),
    "speech": (
        *("pipeline", 'pipeline("automatic-speech-recognition", "DIRECTORY", OPTIONS)'),
        "ORTModelForSpeechSeq2Seq",
    ),
}
# The families whose graphs were refused, in benchmarks/lab/results/interop.md.
NOT_IN_TRANSFORMERS_JS = frozenset("bitnet exaone4 falcon glm4 granitemoe mixtral nemotron olmoe".split())
NOT_IN_OPTIMUM = frozenset(
    "bitnet cohere2 deepseek_v3 ernie4_5 eurobert exaone4 gemma2 granitemoe gte ministral ministral3 "
    "mixtral nomic_bert olmo2 olmo3 olmoe phi phi3 qwen2_moe siglip_text_model starcoder2".split()
)


class OnnxHubFormat:
    """``onnx/model….onnx``, config, tokenizer and what else lies beside the checkpoint."""

    kind: OutputKind = "saved"
    graph = True
    encoder_decoders = True

    def opened_by(self, job: ExportJob) -> OpenedBy:
        """transformers.js and optimum, each in a line, where they open the family; else ONNX Runtime."""
        anatomy, name = job.source.anatomy, graph_name(job)
        function, call, loader = _ASKED[_kind(anatomy)]
        call = call.replace("OPTIONS", f'{{ dtype: "{_numbers(job)[1]}" }}')
        script = (
            "In JavaScript, with this directory below `env.localModelPath`:\n\n"
            f'```js\nimport {{ {function} }} from "@huggingface/transformers";\n'
            f"const run = await {call};\n```"
        )
        python = (
            f"In Python:\n\n```python\nfrom optimum.onnxruntime import {loader}\n\n"
            f'model = {loader}.from_pretrained(".", subfolder="{FOLDER}"{_named(job)})\n```'
        )
        ways = [
            *([] if anatomy.model_type in NOT_IN_TRANSFORMERS_JS else [script]),
            *([] if anatomy.model_type in NOT_IN_OPTIMUM else [python]),
        ]
        plain = f"ONNX Runtime runs `{FOLDER}/{name}`; transformers.js and optimum were tried and do not."
        library = "onnxruntime" if script not in ways else "transformers.js"
        return OpenedBy(library, "\n\n".join(ways or [plain]))

    def prepare(self, job: ExportJob, *, validate: bool) -> PreparedOnnx:
        """The standard form's graph in memory."""
        if job.form.name != CPU.name:
            raise InputError(
                f"the layout of hubs is written for every provider, not for {job.form.name}",
                fix="leave --provider out",
            )
        if job.source.anatomy.kind == "decoder" and not job.source.anatomy.attends:
            raise InputError(
                f"transformers.js and optimum have not been tried with the states of a "
                f"{job.source.anatomy.model_type}",
                why="some of its blocks have no keys and values",
                fix="export to onnx; edgepress and any program that carries the states on run that",
            )
        if job.source.anatomy.kind == "encoder_decoder" and job.kv_dtype != FLOAT:
            raise InputError(
                f"{job.name} would have caches in {job.kv_dtype}, and the layout of hubs has those of an "
                "encoder–decoder in float32",
                why="optimum and transformers.js make them so",
                fix="take --kv fp32, or export to onnx",
            )
        prepared = prepare_graphs(_standard(job), (HUB.decoder, HUB.encoder), validate=validate)
        for graph in prepared.graphs:
            to_plain_rows(graph.model)
        return prepared

    def write(self, job: ExportJob, prepared: PreparedOnnx, directory: Path) -> dict[str, Any]:
        """Write all graphs, their config, and the files beside the checkpoint."""
        (directory / FOLDER).mkdir()
        path = directory / FOLDER / graph_name(job)
        sections = write_graph(_standard(job), prepared, path, _DATA, encoder_name(job))
        reader = job.source.reader
        for name in reader.companions():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(reader.file(name), directory / name)
        _for_transformers_4(directory)
        _with_sizes_of_spectra(job, directory)
        config = {key: value for key, value in reader.config.items() if key != "quantization_config"}
        outside = {
            graph.name: 1
            for graph in (path, path.with_name(encoder_name(job)))
            if graph.with_name(graph.name + _DATA).exists()
        }
        own = {"dtype": _numbers(job)[1], "use_external_data_format": outside or False}
        write_json(directory / "config.json", {**config, "transformers.js_config": own})
        return {name: section for name, section in sections.items() if name != "weights"}

    def check(
        self,
        job: ExportJob,
        prepared: PreparedOnnx,
        directory: Path,
        sections: dict[str, Any],
        work: Path,
    ) -> dict[str, Any]:
        """Prove what was written against torch."""
        path = directory / FOLDER / graph_name(job)
        return prove(_standard(job), path, prepared.parts, sections, work, prepared.opset, HUB)


def graph_name(job: ExportJob) -> str:
    """The file's name, of an encoder–decoder the decoder's."""
    name = "decoder_model_merged" if job.source.anatomy.kind == "encoder_decoder" else "model"
    return f"{name}{_numbers(job)[0]}.onnx"


def encoder_name(job: ExportJob) -> str:
    """The name of the graph of an encoder–decoder's encoder."""
    return f"encoder_model{_numbers(job)[0]}.onnx"


def _named(job: ExportJob) -> str:
    """The graph as an argument of optimum, which finds both of an encoder–decoder by itself (and with the
    name of a decoder asks for a third).
    """
    return "" if job.source.anatomy.kind == "encoder_decoder" else f', file_name="{graph_name(job)}"'


def _kind(anatomy: Anatomy) -> str:
    """One of the keys of ``_ASKED``."""
    if anatomy.kind == "encoder_decoder":
        return "encoder_decoder" if anatomy.hearing is None else "speech"
    other = anatomy.patches is not None or anatomy.tower is not None
    return "decoder" if anatomy.kind == "decoder" else "other encoder" if other else "encoder"


def _numbers(job: ExportJob) -> tuple[str, str]:
    bits = {scheme.bits for scheme in job.source.schemes.values()}
    return _NUMBERS.get(max(bits, default=0), _FLOAT)


def _standard(job: ExportJob) -> ExportJob:
    return replace(job, form=provider_form("cpu", "standard", job.form.activations))


def _with_sizes_of_spectra(job: ExportJob, directory: Path) -> None:
    """Write out the defaults of transformers' extractor, which transformers.js does not have."""
    hearing, config = job.source.anatomy.hearing, directory / _EXTRACTOR
    if hearing is None or hearing.log_mel is None or not config.is_file():
        return
    how = hearing.log_mel
    sizes = {"sampling_rate": how.rate, "n_samples": how.samples, "nb_max_frames": how.frames}
    sizes |= {"n_fft": how.window, "hop_length": how.hop, "feature_size": how.bins}
    found = read_json(config)
    write_json(config, {**(found if isinstance(found, dict) else {}), **sizes})


def _for_transformers_4(directory: Path) -> None:
    """Put the chat template, which is a file of its own since transformers 5, where the others read it, and
    call a tokenizer as they do, who are at transformers 4.
    """
    config, template = directory / "tokenizer_config.json", chat_template_of(directory, {})
    if not config.is_file():
        return
    found = read_json(config)
    changed = dict(found) if isinstance(found, dict) else {}
    if changed.get("tokenizer_class") == _NEW_CLASS:
        changed["tokenizer_class"] = _OLD_CLASS
    if template is not None:
        changed["chat_template"] = template
    if changed != found:
        write_json(config, changed)


FORMAT: ExportFormat[PreparedOnnx] = OnnxHubFormat()
