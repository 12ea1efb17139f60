"""The pass ``embedding`` on encoder–decoders and on models that hear: one table that both stacks read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.model.skeleton import Skeleton
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.grid import quantize
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.pipeline.block_shards import Masks
from edgepress.compress.pipeline.capture import behind_start
from edgepress.compress.pipeline.stage import Stage
from edgepress.compress.solve.table_solving import both_hessians, sum_of, table_hessians
from edgepress.compress.text.calibration import calibration_from
from edgepress.compress.text.micro_batches import MicroBatch, first_tokens
from edgepress.compress.text.token_batch import TokenBatch
from edgepress.errors import RecipeError
from edgepress.export.api import export_bundle
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import read_json
from edgepress.runtime.api import open_bundle
from edgepress.runtime.engine.text_to_text import TextToTextModel
from edgepress.runtime.text.tokenizer import Tokenizer
from edgepress.terminal.progress import Silent
from torch import Tensor

from ..conftest import Watched

pytestmark = pytest.mark.chain

Make, Recipe = Callable[..., Path], Callable[..., str]
SCHEME = Scheme.parse("W3A16-g16")
STEP: dict[str, Any] = {"pass": "embedding", "scheme": SCHEME.name}
CPU = torch.device("cpu")
READ, WRITTEN = (9, 5), (4, 7)  # tokens of two texts, and of what is written of each


def micro_batches() -> list[MicroBatch]:
    """Each text alone, with padding behind it."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for number, (read, written) in enumerate(zip(READ, WRITTEN, strict=True)):
        ids, answer = (torch.randint(3, 30, (1, 9), generator=generator) for _ in range(2))
        masks = [(torch.arange(9) < size).to(torch.int64)[None] for size in (read, written)]
        found.append(MicroBatch(number, ids, masks[0], read, answers=TokenBatch(answer, masks[1])))
    return found


class Watch:
    """What a model's first blocks read, as leaves that gradients stop at, and what its head does."""

    def __init__(self, model: Any, firsts: list[str]) -> None:
        self.leaves: list[Tensor] = []
        self.last = torch.empty(0)
        for name in firsts:
            model.get_submodule(name).register_forward_pre_hook(self._enter)
        model.get_output_embeddings().register_forward_pre_hook(self._leave)

    def _enter(self, _: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        self.leaves.append(given[0].detach().requires_grad_(True))
        return self.leaves[-1], *given[1:]

    def _leave(self, _: Any, given: tuple[Tensor]) -> None:
        self.last = given[0]


@pytest.mark.parametrize(
    ("family", "changes"), [("mt5", {"own_head": True}), ("marian", {"activation_function": "swish"})]
)
def test_both_hessians_are_those_of_the_definition(
    family: str,
    changes: dict[str, Any],
    make_encoder_decoder: Make,
    tmp_path: Path,
    swept: Callable[..., dict[str, Tensor]],
) -> None:
    path = make_encoder_decoder(tmp_path / "m", family, **changes)
    source, model = WeightSource.open(path), load_model(path, cache=False)
    anatomy, head = source.anatomy, model.get_output_embeddings().weight.detach()  # type: ignore[operator]
    bias = getattr(model, "final_logits_bias", torch.zeros(1, len(head)))
    with Skeleton(source, CPU).head() as read:
        found = swept(path, micro_batches(), both_hessians(anatomy, read))
    watch = Watch(model, [anatomy.blocks[0].prefix, anatomy.blocks[3].prefix])
    fisher, gram = (torch.zeros(anatomy.hidden_size, anatomy.hidden_size) for _ in range(2))
    generator = torch.Generator().manual_seed(3)
    for batch in micro_batches():
        written, real = batch.written(), batch.written().attention_mask.bool()
        watch.leaves.clear()
        model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            decoder_input_ids=behind_start(written.input_ids, 0),
        )
        rows = watch.last[real]
        chances = torch.softmax(rows.detach() @ head.T + bias, -1)
        drawn = torch.multinomial(chances, 1, generator=generator)
        gradient = (torch.zeros_like(chances).scatter_(-1, drawn, 1) - chances) @ head
        for leaf in torch.autograd.grad(rows, watch.leaves, gradient):
            fisher += leaf[0].T @ leaf[0]
        weights = 1 - chances.square().sum(-1)
        gram += (rows.detach().T * weights) @ rows.detach()
    tokens = sum(WRITTEN)
    for got, expected in ((found["head_gram"], gram / tokens), (sum_of(found), fisher / tokens)):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_text_is_taken_by_what_is_written_of_it() -> None:
    batches = micro_batches()
    assert first_tokens(batches, 5) == batches[:1]
    assert first_tokens(batches, 5, written=True) == batches


def staged(path: Path, text: Path, folder: Path) -> Stage:
    source = WeightSource.open(path)
    sizes: dict[str, Any] = {"samples": 8, "length": 24, "vocab_size": source.anatomy.vocab_size}
    calibration = calibration_from(str(text), Tokenizer.open(path), kind="encoder_decoder", **sizes)
    return Stage(source, source, folder, calibration, Masks(), CPU, Silent())


FORMS: list[tuple[str, dict[str, Any]]] = [
    ("t5", {}),
    ("mt5", {"own_head": True, "feed_forward_proj": "gated-gelu"}),
    ("marian", {}),
]


@pytest.mark.parametrize(("family", "changes"), FORMS)
def test_rounds_nearer_than_to_nearest_and_the_graphs_answer_as_the_checkpoint(
    family: str,
    changes: dict[str, Any],
    make_encoder_decoder: Make,
    pico_text: Path,
    tmp_path: Path,
    recipe: Recipe,
) -> None:
    model = make_encoder_decoder(tmp_path / "m", family, **changes)
    wanted = table_hessians(staged(model, pico_text, tmp_path / "stage"), "the test")
    assert len(wanted) == (2 if "own_head" in changes else 1)
    steps = recipe(tmp_path, STEP)
    options: dict[str, Any] = {"calibration": str(pico_text), "samples": 8, "length": 24}
    made = compress_model(str(model), recipe=steps, output=tmp_path / "made", **options)
    before, after = WeightSource.open(model), WeightSource.open(made)
    for name, hessian in wanted.items():
        weight, stored = before.stored(f"{name}.weight").float(), after.stored(f"{name}.weight").float()
        nearest = quantize(weight, SCHEME).dequantize()
        lost = [float(((one - weight) @ hessian * (one - weight)).sum()) for one in (stored, nearest)]
        assert lost[0] < lost[1]
        rounded: Any = after.table(name)
        assert torch.equal(rounded.dequantize(), stored) and rounded.scheme == SCHEME
    bundle = export_bundle(made, output=tmp_path / "b", activations="float32")
    assert read_json(bundle / "manifest.json")["parity"]["status"] == "passed"
    answering, torch_model = open_bundle(bundle), load_model(made)
    assert isinstance(answering, TextToTextModel)
    rows = ["the river", "a word and another word under the old bridges", "river"]
    ids = [torch.tensor([answering.input_ids(row)]) for row in rows]
    want = [
        torch_model.generate(one, max_new_tokens=8, do_sample=False, num_beams=1)[0, 1:].tolist()  # type: ignore[operator]
        for one in ids
    ]
    assert [list(reply.token_ids) for reply in answering.generate_batch(rows, max_new_tokens=8)] == want


def test_a_model_that_hears_has_its_table_on_a_grid(
    pico_whisper: Path, pico_sounds: Path, tmp_path: Path, recipe: Recipe
) -> None:
    options: dict[str, Any] = {"calibration": str(pico_sounds), "samples": 8}
    made = compress_model(
        str(pico_whisper), recipe=recipe(tmp_path, STEP), output=tmp_path / "made", **options
    )
    (status,) = read_json(made / "edgepress.json")["layers"]
    assert (status["name"], status["status"]) == ("model.decoder.embed_tokens", "ok")
    source = WeightSource.open(made)
    rounded: Any = source.table(source.anatomy.embedding)
    assert torch.equal(rounded.dequantize(), source.stored(f"{source.anatomy.embedding}.weight").float())
    bundle = export_bundle(made, output=tmp_path / "b")
    assert read_json(bundle / "manifest.json")["parity"]["status"] == "passed"


def test_a_killed_run_goes_on_with_the_same_bytes(
    make_encoder_decoder: Make, pico_text: Path, tmp_path: Path, recipe: Recipe, watched: Watched
) -> None:
    model, steps = make_encoder_decoder(tmp_path / "m"), recipe(tmp_path, STEP)
    options: dict[str, Any] = {"recipe": steps, "calibration": str(pico_text), "samples": 8, "length": 24}
    whole = compress_model(str(model), output=tmp_path / "whole", **options)
    with watched("measuring for embedding", kill_at=20):
        compress_model(str(model), output=tmp_path / "o", **options)
    assert hash_tree(compress_model(str(model), output=tmp_path / "o", **options)) == hash_tree(whole)


def test_an_embedding_behind_a_norm_is_refused_before_any_work(
    make_encoder_decoder: Make, tmp_path: Path, recipe: Recipe
) -> None:
    model = make_encoder_decoder(tmp_path / "m", "bart")
    with pytest.raises(RecipeError, match="not for bart: a norm"):
        plan_model(str(model), recipe=recipe(tmp_path, STEP))
