"""Readers that are fuzzed, of what is made: bundles with their graphs and templates, manifests, run files."""

from pathlib import Path
from typing import Any

import numpy as np

from .....errors import BundleError, RefusedByPolicy
from .....files.hashed_tree import hash_tree
from .....files.storage import sha256_json, write_json
from .models import Reader

CHAT = [{"role": "user", "content": "what ran?"}, {"role": "assistant", "content": "the river"}]
TEMPLATE_WORDS = tuple(
    f" {word} ".encode()
    for word in (
        *("{{", "}}", "{%", "%}", "{% for i in range(10**9) %}", "{% endfor %}", "{{ 'a' * 10**9 }}"),
        *(
            "{{ 9**9**9 }}",
            "{{ messages.__class__ }}",
            "{{ ''.__class__.__mro__ }}",
            "{{ self }}",
            "namespace()",
        ),
        *("{% set x = messages %}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{% include 'a' %}"),
        *("raise_exception('no')", "| tojson", "| join", "loop", "[0]", "['role']", "{{ '%99999999d' % 1 }}"),
        *("strftime_now('%Y')", "{{ strftime_now('\\ud800') }}", "{% import 'os' as o %}", "{{ 1 / 0 }}"),
    )
)


def graph(folder: Path) -> Reader:
    """An ONNX graph, as the runtime reads it without the onnx package."""
    from .....runtime.bundle.graph_file import GraphFile
    from .....runtime.bundle.onnx_wire import external_locations

    path = _save_graph(folder)

    def read(path: Path) -> object:
        external_locations(path)
        return [weight.nbytes for weight in GraphFile.read(path).weights.values()]

    return Reader({path: "bytes"}, read, (b"location", b"offset", b"length", b"\x0a\x00", b"\x3a\x7f"))


def _save_graph(folder: Path) -> Path:
    """A product with its weight in a file beside it, and a branch."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def branch(name: str) -> Any:
        node = helper.make_node("Identity", ["y"], [name], name=f"{name}/identity", axis=-1)
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, 1, [1, 16])])

    folder.mkdir(parents=True)
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["y"], name="product"),
        helper.make_node("If", ["yes"], ["z"], then_branch=branch("a"), else_branch=branch("b"), name="if"),
    ]
    held = [
        numpy_helper.from_array(np.ones((32, 16), np.float32), "weight"),
        numpy_helper.from_array(np.array(True), "yes"),
    ]
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 32])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 16])],
        held,
    )
    model, path = helper.make_model(made), folder / "model.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=64)
    return path


def manifests(folder: Path) -> Reader:
    """The manifests of bundles, of models saved for other runtimes and of compressed checkpoints."""
    from .....runtime.bundle.bundle import Bundle
    from .....runtime.bundle.verification import verify_directory

    decoder = {
        "layers": [{"kv_heads": 2, "head_dim": 16}] * 2,
        "kv_dtype": "uint8",
        "context_length": 512,
        "vocab_size": 320,
        "eos_token_ids": [2],
    }
    encoder = {"pooling": "mean", "max_length": 128, "hidden_size": 64, "inputs": ["input_ids"]}
    kinds: dict[str, dict[str, Any]] = {
        "decoder": {"kind": "decoder", "decoder": decoder},
        "encoder": {"kind": "encoder", "encoder": encoder, "labels": ["a", "b"]},
        "saved": {"schema": "edgepress.saved/1"},
        "checkpoint": {"schema": "edgepress.checkpoint/1"},
    }
    files = {}
    for name, sections in kinds.items():
        path = _save_graph(folder / name).with_name(
            "edgepress.json" if name == "checkpoint" else "manifest.json"
        )
        known = {
            "schema": "edgepress.bundle/1",
            "name": "toy",
            "scheme": "fp32",
            "graph": {"file": "model.onnx"},
        }
        write_json(path, {**known, **sections, "files": hash_tree(path.parent)})
        files[path] = "json"

    def read(path: Path) -> object:
        found = verify_directory(path.parent).as_dict()
        if path.parent.name not in ("decoder", "encoder"):
            return found
        bundle = Bundle.open(path.parent)
        section = bundle.decoder if bundle.kind == "decoder" else bundle.encoder
        return found, section, bundle.disk_bytes

    return Reader(files, read)


def records(folder: Path) -> Reader:
    """Run files, and the table and the page that are made of them."""
    from ....page.compare import as_text, compare_runs
    from ....page.report import render_report
    from ....records import record

    path = folder / "run.jsonl"
    for line in _measurements():
        record.append(path, line)

    def read(path: Path) -> object:
        found = record.read([path])
        return as_text(compare_runs([path])), render_report(found)

    return Reader({path: "jsonl"}, read)


def _measurements() -> list[Any]:
    """A line as validate writes it, and one as profile does."""
    from ....records.record import Measurement, Metric, Subject

    def subject(scheme: str) -> Subject:
        layers = [{"name": "model.layers.0.q_proj", "scheme": scheme, "status": "ok", "error": 0.01}]
        return Subject(
            name="toy",
            manifest_sha256=sha256_json(scheme),
            kind="decoder",
            format="onnx",
            scheme=scheme,
            source="toy model",
            disk_bytes=10**8,
            layers=layers,
            recipe={"passes": [{"pass": "gptq", "scheme": scheme}]},
        )

    def metric(value: float, better: str) -> Metric:
        return Metric(value=value, unit="x", n=16, better=better, ci95=(0.9 * value, 1.1 * value))

    text = {"kind": "quality", "text": "wikipedia", "text_sha256": "a" * 64, "windows": 16, "length": 512}
    task = {"kind": "generate", "batch": 1, "prompt_tokens": 128, "new_tokens": 128}
    original, made = subject("fp32"), subject("W4A16-g32 gptq")
    timed = {"decode_tps": metric(40.0, "higher"), "rss_peak_bytes": metric(1e8, "lower")}
    account = [{"op": "MatMulNBits", "ms": 4.0, "share": 1.0, "nodes": 30}]
    return [
        Measurement(subject=original, workload=text, metrics={"perplexity": metric(20.0, "lower")}),
        Measurement(subject=made, baseline=original, workload=text, metrics={"kl": metric(0.1, "lower")}),
        Measurement(
            subject=made,
            baseline=original,
            workload=task,
            metrics=timed,
            time_by_op=account,
            compare={"ratio_median": 1.4, "ci95": [1.3, 1.5], "n_pairs": 10, "verdict": "faster"},
        ),
    ]


def template(folder: Path) -> Reader:
    """Chat templates, in the child that :func:`edgepress.runtime.text.chat.ChatTemplate` asks."""
    from .....runtime.text import chat
    from .....runtime.text.child_process import ChildProcess, Limits

    folder.mkdir(parents=True)
    path = folder / "chat_template.jinja"
    path.write_text(
        "{% for m in messages %}{% if loop.first %}{{ bos_token }}{% endif %}<|im_start|>{{ m['role'] }}\n"
        "{{ m['content'] | trim }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant"
        "{% endif %}{% set ns = namespace(n=0) %}{% generation %}{{ messages | tojson }}{% endgeneration %}",
        encoding="utf-8",
    )
    child = ChildProcess("chat_worker.py", refused=RefusedByPolicy)
    known = {"bos_token": "<s>", "add_generation_prompt": True}
    limits = Limits(0.5, chat.MEMORY_LIMIT, 12 * chat.OUTPUT_LIMIT)

    def read(path: Path) -> object:
        text = path.read_text(encoding="utf-8", errors="replace")
        asked = {"template": text, "messages": CHAT, "variables": known, "longest": chat.OUTPUT_LIMIT}
        reply = child.ask(asked, limits)
        if "text" not in reply:
            raise BundleError("the template does not render", why=str(reply))
        return reply

    return Reader({path: "bytes"}, read, TEMPLATE_WORDS)
