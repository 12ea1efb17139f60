"""The sweep: against the whole model in memory, resumable at every unit, the same bytes every time."""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.costs import seconds_of
from edgepress.compress.measure import reading
from edgepress.compress.model.checkpoint.reader import CheckpointReader
from edgepress.compress.model.skeleton import Skeleton
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.qtensor import QTensor
from edgepress.compress.pipeline import sweep
from edgepress.compress.pipeline.collect import Side, collect
from edgepress.compress.pipeline.forward import Batch, BatchSplitter, propagate
from edgepress.compress.rates import Rates
from edgepress.compress.recipe import parse
from edgepress.compress.solve.damped_cholesky import factorize
from edgepress.errors import (
    CalibrationError,
    CheckpointError,
    Degraded,
    EdgepressError,
    InputError,
    OutOfResource,
    OutputExists,
    RecipeError,
    ShapeError,
)
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import read_json, write_json

Watched = Callable[..., AbstractContextManager[list[float]]]

pytestmark = pytest.mark.chain


CALIBRATED: dict[str, Any] = {"samples": 12, "length": 32}


def digest(path: Path) -> dict[str, Any]:
    return hash_tree(path)


@pytest.fixture(scope="module")
def whole(pico_llama: Path, pico_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "o"
    return compress_model(
        str(pico_llama), scheme="W4A16-g32", output=out, calibration=str(pico_text), **CALIBRATED
    )


def inputs_of(model: torch.nn.Module, name: str, batches: Any) -> torch.Tensor:
    """What the linear ``name`` reads on the calibration text ``[tokens, in]``."""
    rows: list[torch.Tensor] = []
    hook = model.get_submodule(name).register_forward_pre_hook(
        lambda _, args: rows.append(args[0].flatten(0, 1))
    )
    with torch.no_grad():
        for batch in batches:
            model(batch.input_ids)
    hook.remove()
    return torch.cat(rows).double()


def farthest_code(weight: torch.Tensor, tensor: QTensor, inputs: torch.Tensor) -> float:
    """By how many steps a code of GPTQ lies at most from what it rounds, given the codes before it."""
    gram = inputs.T @ inputs / len(inputs)
    order = torch.sort(gram.diagonal(), descending=True, stable=True).indices
    factor = factorize(gram[order][:, order], 0.01)
    assert factor is not None
    upper, work = factor.upper, weight.double()[:, order]
    step = tensor.scale.double().repeat_interleave(weight.shape[1] // tensor.scale.shape[1], 1)[:, order]
    codes, farthest = tensor.codes.double()[:, order], 0.0
    for j in range(len(gram)):
        wanted = (work[:, j] / step[:, j]).clamp(*tensor.scheme.code_range)
        farthest = max(farthest, float((wanted - codes[:, j]).abs().max()))
        error = (work[:, j] - codes[:, j] * step[:, j]) / upper[j, j]
        work -= error[:, None] * upper[j]
    return farthest


def test_grams_are_those_of_the_partly_compressed_model(
    pico_llama: Path, whole: Path, pico_text: Path
) -> None:
    """Block 2's inputs come from compressed blocks 0 and 1: rebuild them and check each code."""
    from edgepress.compress.text.calibration import calibration_from
    from edgepress.runtime.text.tokenizer import Tokenizer

    calibration = calibration_from(
        str(pico_text), Tokenizer.open(pico_llama), kind="decoder", batch_size=8, **CALIBRATED
    )
    mixed, dense, compressed = load_model(pico_llama), WeightSource.open(pico_llama), WeightSource.open(whole)
    for block in compressed.anatomy.blocks[:2]:
        for linear in block.linears():
            mixed.get_submodule(linear.name).weight.copy_(compressed.dense(linear.name))  # type: ignore[operator]
    name = dense.anatomy.blocks[2].mlp.down.name
    weight, got = dense.dense(name), compressed.linear(name)
    assert isinstance(got, QTensor)
    # Half a step, and what float32 loses: 6e-8 times the condition of the damped Gram (at most 128 / 0.01) of
    # at most 8 steps, 0.006. A tie may fall either way within that; the inputs of another model are far off.
    assert farthest_code(weight, got, inputs_of(mixed, name, calibration.batches)) <= 0.5 + 0.01
    original = inputs_of(load_model(pico_llama), name, calibration.batches)
    assert farthest_code(weight, got, original) > 0.6


def test_same_command_same_bytes(pico_llama: Path, whole: Path, pico_text: Path, tmp_path: Path) -> None:
    again = compress_model(
        str(pico_llama), scheme="W4A16-g32", output=tmp_path / "o", calibration=str(pico_text), **CALIBRATED
    )
    assert digest(again) == digest(whole)


@pytest.mark.parametrize("units", [0, 1, 2])
def test_resume_after_a_kill_gives_the_same_bytes(
    pico_llama: Path,
    whole: Path,
    pico_text: Path,
    tmp_path: Path,
    watched: Watched,
    units: int,
) -> None:
    command: dict[str, Any] = {"scheme": "W4A16-g32", "output": tmp_path / "o", "calibration": str(pico_text)}
    with watched("compressing blocks", kill_at=1 + units):
        compress_model(str(pico_llama), **command, **CALIBRATED)
    assert not (tmp_path / "o").exists()
    with watched("compressing blocks") as done:
        out = compress_model(str(pico_llama), **command, **CALIBRATED)
    assert done == [units, *[1] * (3 - units)]
    assert digest(out) == digest(whole)
    assert [path.name for path in tmp_path.iterdir()] == ["o"]


@pytest.mark.parametrize("damage", ["part", "activations", "journal", "other run"])
def test_damaged_or_foreign_leftovers_are_not_trusted(
    pico_llama: Path,
    whole: Path,
    pico_text: Path,
    tmp_path: Path,
    watched: Watched,
    damage: str,
) -> None:
    command: dict[str, Any] = {"scheme": "W4A16-g32", "output": tmp_path / "o", "calibration": str(pico_text)}
    with watched("compressing blocks", kill_at=3):
        compress_model(
            str(pico_llama), **{**command, "seed": 7 if damage == "other run" else None}, **CALIBRATED
        )
    work = tmp_path / ".o.partial" / "work"
    if damage == "journal":
        (work / "journal.json").write_text("{broken")
    elif damage != "other run":
        folder = work / "stage-0" / ("parts" if damage == "part" else "activations/inputs/0002")
        victim = sorted(folder.iterdir())[0]
        data = bytearray(victim.read_bytes())
        data[-1] ^= 1
        victim.write_bytes(data)
    assert digest(compress_model(str(pico_llama), **command, **CALIBRATED)) == digest(whole)


def test_outputs_are_refused_before_work(pico_llama: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputExists, match="overwrite"):
        compress_model(str(pico_llama), scheme="W8A8", output=whole)
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    with pytest.raises(InputError, match="is the input"):
        compress_model(str(copy), scheme="W8A8", output=copy, overwrite=True)
    assert load_model(copy) is not None


def test_overwrite_replaces_what_an_earlier_run_wrote(pico_llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    compress_model(str(pico_llama), scheme="W8A8", output=out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputExists, match="did not write") as caught:
        compress_model(str(pico_llama), scheme="W4A16-g32", output=out, overwrite=True)
    assert caught.value.why == "'notes.txt'"
    assert (out / "notes.txt").read_text() == "mine"
    assert read_json(out / "edgepress.json")["scheme"] == "W8A8"
    (out / "notes.txt").unlink()
    compress_model(str(pico_llama), scheme="W4A16-g32", output=out, overwrite=True)
    assert read_json(out / "edgepress.json")["scheme"] == "W4A16-g32 rtn"


@pytest.mark.parametrize("option", ["calibration", "recipe", "corpus", "student", "plan", "costs"])
def test_no_text_recipe_or_student_lies_in_the_output(
    pico_llama: Path, pico_text: Path, tmp_path: Path, option: str
) -> None:
    """Nor the output in a directory of texts."""
    out = compress_model(str(pico_llama), scheme="W8A8", output=tmp_path / "o")
    read, recipe = out / "tokenizer.json", tmp_path / "r.yaml"
    given: dict[str, Any] = {"recipe": str(recipe), "calibration": str(pico_text), "samples": 8, "length": 32}
    recipe.write_text("passes: [{pass: rtn, scheme: W4A16-g32}]\n")
    if option == "corpus":
        recipe.write_text(f"passes: [{{pass: vocabulary, corpus: {read}}}]\n")
    elif option in ("plan", "costs"):
        recipe.write_text("passes: [{pass: allocate, bits: 4.6, using: {pass: rtn}}]\n")
        read = out = compress_model(str(pico_llama), output=tmp_path / "a", **given)
        budget = "" if option == "plan" else "bits: 4.6, "
        recipe.write_text(f"passes: [{{pass: allocate, {budget}{option}: {read}, using: {{pass: rtn}}}}]\n")
    elif option == "student":
        read = out
        recipe.write_text(f"passes: [{{pass: distill, student: {read}}}]\n")
    else:
        given[option] = str(read)
    before = digest(out)
    with pytest.raises(InputError, match=f"the output .* (is|holds) the input {read}"):
        compress_model(str(pico_llama), output=out, overwrite=True, **given)
    assert digest(out) == before
    if option == "calibration":
        with pytest.raises(InputError, match="inside the input"):
            compress_model(str(pico_llama), output=tmp_path / "new", scheme="W8A8", calibration=str(tmp_path))


def test_a_run_that_finished_nothing_leaves_nothing(
    pico_llama: Path, pico_text: Path, tmp_path: Path, watched: Watched
) -> None:
    """Until the first block is in the journal there is nothing to resume."""
    for blocks, left in ((0, []), (1, [".o.partial"])):
        with watched("compressing blocks", kill_at=1 + blocks):
            compress_model(
                str(pico_llama),
                scheme="W4A16-g32",
                output=tmp_path / "o",
                calibration=str(pico_text),
                **CALIBRATED,
            )
        assert [path.name for path in tmp_path.iterdir()] == left


def test_a_group_that_does_not_divide_is_named_before_calibration(pico_llama: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(b"\xff")
    with pytest.raises(ShapeError) as caught:
        compress_model(str(pico_llama), scheme="W4A16-g128", output=tmp_path / "o", calibration=str(text))
    assert "q_proj" in str(caught.value) and "16, 32, 64" in str(caught.value)
    assert list(tmp_path.iterdir()) == [text]


def test_targets_that_match_nothing_are_refused(pico_llama: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("passes: [{pass: rtn, scheme: W4A16-g32, targets: [query]}]\n")
    with pytest.raises(RecipeError, match="query in its targets matches no layer"):
        plan_model(str(pico_llama), recipe=str(recipe))


def test_gptq_without_text_says_how_to_give_some(pico_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="--text"):
        compress_model(str(pico_llama), recipe="w4a16-gptq", output=tmp_path / "o")


def test_strict_turns_a_fallback_into_a_failure(
    pico_llama: Path, pico_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgepress.compress.passes import gptq as gptq_module

    monkeypatch.setattr(gptq_module, "factorize", lambda *_: None)
    command: dict[str, Any] = {"scheme": "W4A16-g32", "calibration": str(pico_text), **CALIBRATED}
    with pytest.raises(Degraded, match="21 layers"):
        compress_model(str(pico_llama), output=tmp_path / "a", strict=True, **command)
    assert not (tmp_path / "a").exists()
    out = compress_model(str(pico_llama), output=tmp_path / "b", **command)
    layers = read_json(out / "edgepress.json")["layers"]
    assert {layer["status"] for layer in layers} == {"fallback-rtn"}


def test_layers_of_unequal_width(make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path) -> None:
    """A checkpoint whose blocks are of the sizes in its own section (a pruned model) sweeps and loads."""
    from safetensors.torch import load_file, save_file

    model = make_decoder(tmp_path / "m")
    tensors = load_file(model / "model.safetensors")
    layer = "model.layers.1."
    for part in ("gate_proj", "up_proj"):
        tensors[f"{layer}mlp.{part}.weight"] = tensors[f"{layer}mlp.{part}.weight"][:96].contiguous()
    tensors[f"{layer}mlp.down_proj.weight"] = tensors[f"{layer}mlp.down_proj.weight"][:, :96].contiguous()
    tensors[f"{layer}self_attn.q_proj.weight"] = tensors[f"{layer}self_attn.q_proj.weight"][:32].contiguous()
    tensors[f"{layer}self_attn.o_proj.weight"] = tensors[f"{layer}self_attn.o_proj.weight"][
        :, :32
    ].contiguous()
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="num_attention_heads is 4, the weights have 2"):
        WeightSource.open(model)
    whole, narrow = {"ffn": 128, "heads": 4, "kv_heads": 2}, {"ffn": 96, "heads": 2, "kv_heads": 2}
    config = read_json(model / "config.json") | {"edgepress_blocks": [whole, narrow, whole]}
    write_json(model / "config.json", config)
    out = compress_model(
        str(model), scheme="W4A16-g32", output=tmp_path / "o", calibration=str(pico_text), **CALIBRATED
    )
    ids = torch.randint(3, 300, (2, 9))
    with torch.no_grad():
        dense, small = load_model(model)(ids).logits, load_model(out)(ids).logits
    assert dense.shape == small.shape and bool(torch.isfinite(small).all())
    assert WeightSource.open(out).anatomy.blocks[1].attention.heads == 2


def out_of_memory(
    limit: int, real: Callable[[Any, Batch], torch.Tensor]
) -> Callable[[Any, Batch], torch.Tensor]:
    def run(module: Any, batch: Batch) -> torch.Tensor:
        if batch.hidden.shape[0] > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return real(module, batch)

    return run


def test_out_of_memory_halves_the_batch_and_counts_nothing_twice(
    pico_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgepress.compress.pipeline import collect as collecting
    from edgepress.compress.pipeline import forward
    from edgepress.compress.pipeline.capture import block_inputs

    source = WeightSource.open(pico_llama)
    skeleton = Skeleton(source, torch.device("cpu"))
    anatomy = source.anatomy.blocks[0]
    with skeleton.embeddings() as model:
        hidden, arguments = block_inputs(skeleton, model, torch.randint(3, 300, (8, 16)), None)
    module = skeleton.fill(anatomy.prefix)
    linears: Any = {linear.name: skeleton.submodule(linear.name) for linear in anatomy.linears()}
    batch = Batch(hidden, arguments[0], None)
    side = Side(module, linears, lambda: iter([batch]))
    wanted = {linear.name: ("gram", "absmean") for linear in anatomy.linears()}
    notes: list[str] = []

    def gather() -> tuple[Any, torch.Tensor]:
        smaller = BatchSplitter(notes.append)
        statistics = collect(side, None, anatomy, wanted, smaller)
        return statistics, propagate(module, batch, smaller)

    whole, output = gather()
    real = forward.run_block
    for user in (forward, collecting):
        monkeypatch.setattr(user, "run_block", out_of_memory(3, real))
    pieces, pieced = gather()
    assert any("pieces" in note for note in notes)
    assert torch.allclose(output, pieced, atol=1e-5)
    for name, values in whole.items():
        for statistic, value in values.items():
            assert torch.allclose(value, pieces[name][statistic], rtol=1e-4, atol=1e-5)
    for user in (forward, collecting):
        monkeypatch.setattr(user, "run_block", out_of_memory(0, real))
    with pytest.raises(OutOfResource, match="--length"):
        gather()


def test_plan_counts_layers_and_bytes(pico_llama: Path, pico_text: Path, whole: Path) -> None:
    text = str(pico_text)
    plan = plan_model(str(pico_llama), scheme="W4A16-g32", calibration=text, samples=12, length=32)
    (step,) = plan.steps
    assert (step.layers, plan.blocks, plan.calibration_tokens) == (21, 3, 384)
    written = (whole / "model.safetensors").stat().st_size
    assert plan.result_bytes == pytest.approx(written, rel=0.1)
    assert plan.peak_memory > 0 and plan.seconds > 0


def test_plan_asks_more_time_for_more_work(pico_llama: Path, tmp_path: Path) -> None:
    source = WeightSource.open(pico_llama)

    def work(*passes: dict[str, Any]) -> float:
        recipe = parse({"passes": [{**one, "scheme": "W4A16-g32"} for one in passes]}, "here")
        return seconds_of(source, recipe, 64, 64, 1024, Rates(2e10, 1.5e10, 2e4, 1e8, 2e9, 1e9, 4.0))

    gptq = {"pass": "gptq"}
    ascending = [
        work({"pass": "rtn"}),
        work(gptq),
        work({**gptq, "refinements": 2}),
        work({**gptq, "refinements": 2, "sequential": True, "correction": 1}),
        work({"pass": "autoround", "iterations": 50, "precision": "float32"}),
        work(gptq, {"pass": "autoround", "iterations": 50, "precision": "float32"}),
        work({"pass": "autoround", "iterations": 200, "precision": "float32"}),
    ]
    assert ascending == sorted(ascending) and len(set(ascending)) == len(ascending)


def test_non_finite_weights_are_named(make_decoder: Callable[..., Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = make_decoder(tmp_path / "m")
    tensors = load_file(model / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = torch.nan
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(EdgepressError, match=r"layers\.1\.mlp\.up_proj"):
        compress_model(str(model), scheme="W4A16-g32", output=tmp_path / "o")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("model_type", ["gemma2", "gpt2", "gpt_neox", "opt", "phi"])
@pytest.mark.parametrize("padded", [False, True])
def test_blocks_run_one_by_one_are_the_whole_model(
    model_type: str, padded: bool, make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    """Each block has arguments of its own: in Gemma 2 every other one sees a sliding window."""
    from edgepress.compress.model.torch_model import load_model
    from edgepress.compress.pipeline.capture import block_inputs

    source = WeightSource.open(make_decoder(tmp_path / "m", model_type))
    skeleton = Skeleton(source, torch.device("cpu"))
    ids = torch.randint(3, 300, (2, 40), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 30:] = 0
    given = mask if padded else None
    with skeleton.embeddings() as model:
        hidden, arguments = block_inputs(skeleton, model, ids, given)
    for block, named in zip(source.anatomy.blocks, arguments, strict=True):
        hidden = propagate(
            skeleton.fill(block.prefix), Batch(hidden, named, None), BatchSplitter(lambda _: None)
        )
    with skeleton.head() as logits:
        found = logits(hidden)
    with torch.no_grad():
        want = load_model(tmp_path / "m")(ids, attention_mask=given).logits
    real = mask.bool() if padded else torch.ones_like(mask).bool()
    assert torch.allclose(found[real], want[real], atol=1e-5)


def test_the_next_block_is_read_while_this_one_is_solved(
    pico_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    expect, fill = CheckpointReader.expect, Skeleton.fill
    monkeypatch.setattr(
        CheckpointReader, "expect", lambda self, prefix: (seen.append(f"+{prefix}"), expect(self, prefix))
    )
    monkeypatch.setattr(Skeleton, "fill", lambda self, name: (seen.append(f"{name}."), fill(self, name))[1])
    compress_model(str(pico_llama), scheme="W4A16-g32", output=tmp_path / "o")
    blocks = [f"model.layers.{index}." for index in range(3)]
    swept = [one for one in seen if "layers" in one]  # the probes of the first and of the last model too
    order = [blocks[0], f"+{blocks[1]}", blocks[1], f"+{blocks[2]}", blocks[2]]
    assert " ".join(order) in " ".join(swept)


@pytest.mark.parametrize(("scheme", "rounded"), [("W4A16-g32", True), ("W8A16", False)])
def test_text_goes_through_in_bfloat16_where_weights_become_far_coarser(
    pico_llama: Path,
    pico_text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    rounded: bool,
) -> None:
    """Other weights, of which the model is as near to the original; at 8 bits the same bytes."""
    monkeypatch.setattr(reading, "computes_in_bfloat16", lambda device: True)
    results = []
    for width in (1, 10_000):
        monkeypatch.setattr(sweep, "WIDE", width)
        out = compress_model(
            str(pico_llama),
            scheme=scheme,
            output=tmp_path / str(width),
            calibration=str(pico_text),
            **CALIBRATED,
        )
        step = read_json(out / "edgepress.json")["steps"][-1]
        results.append((hash_tree(out)["model.safetensors"], step["mean_error"]))
    (first, error), (exact, known) = results
    assert (first != exact) == rounded
    assert error == pytest.approx(known, rel=0.05)
