"""What a plan says of a graph, against the graph that is exported: the same operations, as often."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from edgepress.benchmarks.lab.same_bytes.pico_embedders import save_embedder
from edgepress.benchmarks.speed.planned_subject import subject_of
from edgepress.cli.entry import run as edgepress
from edgepress.compress.api import compress_model
from edgepress.devices.kernel_table.operation import Operation
from edgepress.devices.predict.run import Operations, Run
from edgepress.devices.predict.subject import Subject, bundle_subject
from edgepress.errors import BadUsage, EdgepressError
from edgepress.export.api import export_bundle
from edgepress.runtime.kernels.library import library

pytestmark = [
    pytest.mark.chain,
    pytest.mark.skipif(library() is None, reason="plans are of edgepress's own operators"),
]


def operations(subject: Subject, run: Run) -> Counter[Operation]:
    """Whether scales are exact in float16 is known only when they are there."""
    found: Counter[Operation] = Counter()
    for one, count in subject.does(run).counts.items():
        features = tuple(feature for feature in one.features if feature != "wide scales")
        found[replace(one, features=features, read=0)] += count
    return found


def assert_same(planned: Subject, bundle: Subject, *runs: Run) -> None:
    for run in runs:
        assert operations(planned, run) == operations(bundle, run)
    assert (planned.kv_bytes, planned.vocab, planned.kind) == (bundle.kv_bytes, bundle.vocab, bundle.kind)
    # A pico model's pooler, which no graph has, is a fifth of it.
    assert planned.disk == pytest.approx(bundle.disk, rel=0.35)


def test_a_decoder_as_it_is(pico_llama: Path, tmp_path: Path) -> None:
    export_bundle(pico_llama, output=tmp_path / "bundle")
    runs = (Run(1, 7), Run(12, 0), Run(4, 8))
    assert_same(subject_of(str(pico_llama)), bundle_subject(tmp_path / "bundle"), *runs)


@pytest.mark.parametrize("scheme", ["W4A16", "W8A8"])
def test_a_decoder_after_a_scheme_and_its_checkpoint(scheme: str, pico_llama: Path, tmp_path: Path) -> None:
    compress_model(str(pico_llama), output=tmp_path / "checkpoint", scheme=scheme)
    export_bundle(tmp_path / "checkpoint", output=tmp_path / "bundle")
    bundle = bundle_subject(tmp_path / "bundle")
    for planned in (subject_of(str(pico_llama), scheme=scheme), subject_of(str(tmp_path / "checkpoint"))):
        assert_same(planned, bundle, Run(1, 7), Run(12, 0))


def test_a_decoder_whose_rare_tokens_have_fewer_bits(
    pico_llama: Path, pico_text: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("passes: [{pass: embedding, scheme: W4A16-g16+W2A16-g32@48}]")
    text: dict[str, Any] = {"calibration": str(pico_text), "samples": 8, "length": 32}
    compress_model(str(pico_llama), output=tmp_path / "checkpoint", recipe=str(recipe), **text)
    export_bundle(tmp_path / "checkpoint", output=tmp_path / "bundle")
    bundle = bundle_subject(tmp_path / "bundle")
    for planned in (
        subject_of(str(pico_llama), recipe=str(recipe)),
        subject_of(str(tmp_path / "checkpoint")),
    ):
        assert computed(planned.does(Run(1, 7))) == computed(bundle.does(Run(1, 7)))
        assert planned.disk == pytest.approx(bundle.disk, rel=0.35)


@pytest.mark.parametrize("scheme", [None, "W8A8"])
def test_an_encoder(scheme: str | None, tmp_path: Path, pico_bert: Path) -> None:
    checkpoint = pico_bert
    if scheme is not None:
        checkpoint = tmp_path / "checkpoint"
        compress_model(str(pico_bert), output=checkpoint, scheme=scheme)
    export_bundle(checkpoint, output=tmp_path / "bundle")
    planned = subject_of(str(pico_bert), scheme=scheme)
    assert_same(planned, bundle_subject(tmp_path / "bundle"), Run(16, length=8))


def computed(found: Operations) -> Counter[Operation]:
    """The products and attention of a run, as often as they are there."""
    kept = {one: count for one, count in found.counts.items() if one.kind != "rows"}
    return Counter({replace(one, features=(), read=0): count for one, count in kept.items()})


@pytest.mark.parametrize("scheme", [None, "W4A16", "W8A8"])
@pytest.mark.parametrize("kind", ["vit", "bart", "whisper"])
def test_images_and_answers(
    kind: str,
    scheme: str | None,
    make_vision: Callable[..., Path],
    make_encoder_decoder: Callable[..., Path],
    tmp_path: Path,
) -> None:
    make = make_vision if kind == "vit" else make_encoder_decoder
    model = checkpoint = make(tmp_path / "model", kind)
    if scheme is not None:
        recipe, checkpoint = tmp_path / "recipe.yaml", tmp_path / "checkpoint"
        group = "-g16" if scheme == "W4A16" else ""
        recipe.write_text(f"passes: [{{pass: rtn, scheme: {scheme}{group}}}]")
        compress_model(str(model), output=checkpoint, recipe=str(recipe))
    bundle = bundle_subject(export_bundle(checkpoint, output=tmp_path / "bundle", validate=False))
    planned = subject_of(str(checkpoint))
    same = ("kind", "unit", "length", "begins", "kv_bytes", "values", "vocab", "seconds", "held", "most_read")
    assert [getattr(planned, name) for name in same] == [getattr(bundle, name) for name in same]
    length = bundle.length or 16
    pairs = [(planned.does, bundle.does, Run(length, length=length))]
    if planned.reads is not None and bundle.reads is not None:
        pairs = [(planned.does, bundle.does, Run(1, 3, length=length))]
        pairs.append((planned.reads, bundle.reads, Run(length, length=length)))
    for ours, theirs, run in pairs:
        plan, found = ours(run), theirs(run)
        assert computed(plan) == computed(found)
        assert plan.nodes == pytest.approx(found.nodes, rel=0.25)


def encoder_of(family: str, folder: Path, make_encoder: Callable[..., Path]) -> Path:
    """A pico encoder of texts whose tokens are not packed; decoders have fewer key heads than heads."""
    if family in ("mistral", "qwen3"):
        return save_embedder(folder, family, {"max_position_embeddings": 160})
    return make_encoder(folder, family, **({"num_key_value_heads": 2} if family == "eurobert" else {}))


# Of sums and norms of a decoder's ropes as tables, and of MPNet's biases by distance, some are not planned.
IN_PRODUCTS_ALONE = ("mistral", "qwen3", "mpnet")


@pytest.mark.parametrize("scheme", [None, "W4A16", "W8A8"])
@pytest.mark.parametrize(
    "family", ["mistral", "qwen3", "eurobert", "modernbert", "nomic_bert", "gte", "mpnet"]
)
def test_encoders_that_are_not_packed(
    family: str, scheme: str | None, make_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    model = checkpoint = encoder_of(family, tmp_path / "model", make_encoder)
    if scheme is not None:
        checkpoint = compress_model(str(model), output=tmp_path / "checkpoint", scheme=scheme)
    bundle = bundle_subject(export_bundle(checkpoint, output=tmp_path / "bundle", validate=False))
    planned, run = subject_of(str(model), scheme=scheme), Run(32, length=16)
    assert (planned.kind, planned.kv_bytes, planned.vocab) == (bundle.kind, bundle.kv_bytes, bundle.vocab)
    assert not any(one.op == "EncoderAttention" for one in planned.does(run).counts)
    plan, found = planned.does(run), bundle.does(run)
    assert computed(plan) == computed(found)
    if family not in IN_PRODUCTS_ALONE:
        assert operations(planned, run) == operations(bundle, run)
    assert plan.nodes == pytest.approx(found.nodes, rel=0.35)


def test_what_cannot_be_planned_is_typed(
    pico_llama: Path, make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(EdgepressError, match="no attention"):
        subject_of(str(make_decoder(tmp_path / "mamba", "mamba")))
    export_bundle(pico_llama, output=tmp_path / "bundle")
    with pytest.raises(BadUsage, match="is a bundle"):
        subject_of(str(tmp_path / "bundle"), scheme="W4A16")
    words = ["predict", str(pico_llama), "--on", "raspberry-pi-5", "--prompt-tokens", "8"]
    assert edgepress([*words, "--max-new-tokens", "4", "-r", "fast", "--scheme", "W4A16"]) == 2
    assert edgepress([*words, "--max-new-tokens", "4", "--scheme", "W4A16", "--json"]) == 0
