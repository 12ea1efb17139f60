"""Statistics that compare the partly compressed model with the original, through a whole sweep."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.grid import quantize
from edgepress.compress.passes.rtn import Rtn
from edgepress.compress.pipeline.block import Block
from edgepress.compress.pipeline.block_pass import BlockPass
from edgepress.compress.pipeline.journal import Journal
from edgepress.compress.pipeline.statistics import STATISTICS, Gram
from edgepress.compress.pipeline.sweep import Sweep
from edgepress.compress.solve.group_solving import HALVES, RESIDUAL_HALVES
from edgepress.compress.text.calibration import calibration_from
from edgepress.errors import RecipeError
from edgepress.files.hashed_tree import hash_tree
from edgepress.runtime.text.tokenizer import Tokenizer
from edgepress.terminal.progress import Silent

pytestmark = pytest.mark.chain


SEEN: dict[str, torch.Tensor] = {}


class Watch(BlockPass):
    """Keeps what it is shown."""

    needs: ClassVar[tuple[str, ...]] = HALVES
    compares: ClassVar[bool] = True

    def apply(self, block: Block) -> None:
        for linear in self.selected_in(block):
            SEEN[linear.name] = sum(block.statistic(linear, name) for name in HALVES) / 2

    def selected_in(self, block: Block) -> list[Any]:
        return [linear for linear in block.anatomy.linears() if self.selects(linear)]


class WatchStream(Watch):
    """The same of what the residual stream lacks."""

    needs: ClassVar[tuple[str, ...]] = ()
    reads_batches: ClassVar[bool] = True

    def apply(self, block: Block) -> None:
        for linear in block.anatomy.linears():
            if block.anatomy.stream_reader(linear):
                found = block.collect([linear], RESIDUAL_HALVES)[linear.name]
                SEEN[linear.name] = sum(found.values()) / 2  # type: ignore[assignment]


def inputs_of(
    model: Path,
    names: list[str],
    ids: torch.Tensor,
    before: Callable[[Any], None],
    mask: torch.Tensor | None = None,
) -> Any:
    module = load_model(model)
    before(module)
    rows: dict[str, torch.Tensor] = {}
    for name in names:
        module.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: rows.__setitem__(name, args[0].flatten(0, 1))
        )
    with torch.no_grad():
        module(ids, attention_mask=mask)
    return rows


def test_cross_grams_are_those_of_the_two_whole_models(
    pico_llama: Path, pico_text: Path, tmp_path: Path
) -> None:
    source = WeightSource.open(pico_llama)
    calibration = calibration_from(
        str(pico_text), Tokenizer.open(pico_llama), kind="decoder", batch_size=8, samples=8, length=32
    )
    rounding = Rtn(scheme="W2A16-g16")
    steps: Any = [[("watch", Watch())], [("rtn", rounding)]]
    SEEN.clear()
    journal = Journal.open(tmp_path, "key")
    schemes = {"every linear": rounding.scheme}
    Sweep(source, steps, schemes, calibration, torch.device("cpu"), journal, Silent()).run()
    blocks = source.anatomy.blocks
    names = [linear.name for linear in blocks[1].linears()]

    def quantize_first(module: Any) -> None:
        for linear in blocks[0].linears():
            weight = module.get_submodule(linear.name).weight
            weight.copy_(quantize(source.dense(linear.name), rounding.scheme).dequantize())

    ids = calibration.batches[0].input_ids
    original = inputs_of(pico_llama, names, ids, lambda _: None)
    current = inputs_of(pico_llama, names, ids, quantize_first)
    for name in names:
        expected = (original[name] - current[name]).T @ current[name] / current[name].shape[0]
        assert torch.allclose(SEEN[name], expected, atol=1e-4), name
    assert all(bool((SEEN[linear.name] == 0).all()) for linear in blocks[0].linears())


@pytest.mark.parametrize(
    ("kind", "readers"),
    [
        ("decoder", {"o": "input_layernorm", "down": "post_attention_layernorm"}),
        ("encoder", {"o": "attention.self.query", "down": "intermediate.dense"}),
    ],
)
def test_what_the_residual_stream_lacks_is_that_of_the_two_whole_models(
    kind: str,
    readers: dict[str, str],
    pico_llama: Path,
    make_encoder: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
) -> None:
    model = pico_llama if kind == "decoder" else make_encoder(tmp_path / "m", "bert")
    source = WeightSource.open(model)
    calibration: Any = calibration_from(
        str(pico_text), Tokenizer.open(model), kind=kind, batch_size=8, samples=8, length=32
    )
    rounding = Rtn(scheme="W2A16-g16")
    steps: Any = [[("rtn", rounding)], [("watch", WatchStream())]]
    SEEN.clear()
    journal = Journal.open(tmp_path / "work", "key")
    schemes = {"every linear": rounding.scheme}
    Sweep(source, steps, schemes, calibration, torch.device("cpu"), journal, Silent()).run()
    first, block = source.anatomy.blocks[:2]
    adding = {linear.role: linear.name for linear in block.linears() if linear.role in readers}
    streams = {role: f"{block.prefix}.{reader}" for role, reader in readers.items()}

    def quantize_both(module: Any) -> None:
        for linear in (*first.linears(), *block.linears()):
            weight = module.get_submodule(linear.name).weight
            weight.copy_(quantize(source.dense(linear.name), rounding.scheme).dequantize())

    (batch,) = calibration.batches
    names = [*adding.values(), *streams.values()]
    real = slice(None) if batch.attention_mask is None else batch.attention_mask.bool().flatten()
    original, current = (
        {
            name: rows[real]
            for name, rows in inputs_of(model, names, batch.input_ids, before, batch.attention_mask).items()
        }
        for before in (lambda _: None, quantize_both)
    )
    assert adding.keys() == readers.keys()
    for role, name in adding.items():
        rows, missing = current[name], original[streams[role]] - current[streams[role]]
        assert float(missing.abs().max()) > 0.01
        assert torch.allclose(SEEN[name], missing.T @ rows / len(rows), atol=1e-4), name


def test_statistics_go_when_they_are_forgotten(
    pico_llama: Path, pico_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None waits for Python's collector: of a large model each is hundreds of megabytes."""
    made: list[weakref.ref[Any]] = []

    def watched(size: int, device: torch.device) -> Gram:
        gram = Gram(size, device)
        made.append(weakref.ref(gram))
        return gram

    monkeypatch.setitem(STATISTICS, "gram", watched)  # type: ignore[arg-type]
    (tmp_path / "r.yaml").write_text("passes: [{pass: gptq, scheme: W4A16-g32}]")
    recipe, text = str(tmp_path / "r.yaml"), str(pico_text)
    gc.collect()
    gc.disable()
    try:
        compress_model(
            str(pico_llama), recipe=recipe, output=tmp_path / "o", calibration=text, samples=4, length=32
        )
    finally:
        gc.enable()
    assert made
    assert [one for one in made if one() is not None] == []


def test_a_repeated_block_is_shown_all_its_repetitions(
    make_encoder: Callable[..., Path], pico_text: Path, tmp_path: Path
) -> None:
    model = make_encoder(tmp_path / "m", "albert", embedding_size=32, num_hidden_layers=3)
    source = WeightSource.open(model)
    calibration = calibration_from(
        str(pico_text), Tokenizer.open(model), kind="encoder", batch_size=8, samples=8, length=32
    )
    rounding = Rtn(scheme="W2A16-g16")
    steps: Any = [[("rtn", rounding)], [("watch", Watch())]]
    SEEN.clear()
    journal = Journal.open(tmp_path / "work", "key")
    schemes = {"every linear": rounding.scheme}
    Sweep(source, steps, schemes, calibration, torch.device("cpu"), journal, Silent()).run()
    (block,) = source.anatomy.blocks
    seen: list[dict[str, list[torch.Tensor]]] = []
    for rounded in (False, True):
        module, calls = load_model(model), dict[str, list[torch.Tensor]]()
        for linear in block.linears():
            part = module.get_submodule(linear.name)
            if rounded:
                part.weight.copy_(quantize(source.dense(linear.name), rounding.scheme).dequantize())
            part.register_forward_pre_hook(
                lambda _, args, name=linear.name, calls=calls: calls.setdefault(name, []).append(args[0])
            )
        for batch in calibration.batches:
            with torch.no_grad():
                module(batch.input_ids, attention_mask=batch.attention_mask)
        seen.append(calls)
    real = torch.cat([batch.attention_mask.bool().flatten() for batch in calibration.batches for _ in "123"])
    for name, found in SEEN.items():
        original, current = (torch.cat([one.flatten(0, 1) for one in side[name]])[real] for side in seen)
        expected = (original - current).T @ current / len(current)
        assert len(seen[0][name]) == 3 * len(calibration.batches)
        assert torch.allclose(found, expected, atol=1e-4), name


def test_layers_of_a_repeated_block_are_refused(make_encoder: Callable[..., Path], tmp_path: Path) -> None:
    model = make_encoder(tmp_path / "m", "albert", num_hidden_layers=3)
    (tmp_path / "r.yaml").write_text("passes: [{pass: layers, keep: 0.5}]")
    options: dict[str, Any] = {"recipe": str(tmp_path / "r.yaml"), "output": tmp_path / "o"}
    with pytest.raises(RecipeError, match="one block, which is applied 3 times"):
        compress_model(str(model), calibration="wikipedia", **options)


def test_a_killed_run_of_a_repeated_block_goes_on_with_the_same_bytes(
    make_encoder: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
    run: Callable[..., Path],
    watched: Callable[..., Any],
) -> None:
    model = make_encoder(tmp_path / "m", "albert", embedding_size=32, num_hidden_layers=3)
    steps: list[dict[str, Any]] = [
        {"pass": "gptq", "scheme": "W4A16-g16", "targets": [one]} for one in ("q", "k")
    ]
    steps[0]["samples"] = 2
    expected = hash_tree(run(model, pico_text, tmp_path, *steps))
    for kill in (2, 4):
        with watched("compressing blocks", kill_at=kill):
            run(model, pico_text, tmp_path, *steps, name=f"killed-{kill}")
        assert hash_tree(run(model, pico_text, tmp_path, *steps, name=f"killed-{kill}")) == expected
