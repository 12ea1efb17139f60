"""Encoder–decoders in the sweep: what streams through both stacks is what transformers computes."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.benchmarks.lab.programs.streamed_gradients import Kept, largest_error
from edgepress.compress.api import compress_model
from edgepress.compress.files_as_calibration import calibration_of_files
from edgepress.compress.model.anatomy import module_name
from edgepress.compress.model.block_anatomy import BlockAnatomy
from edgepress.compress.model.skeleton import Skeleton
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.pipeline.backward_sweep import BackwardSweep
from edgepress.compress.pipeline.block_inputs import Stream
from edgepress.compress.pipeline.capture import behind_start
from edgepress.compress.pipeline.collect import Side, collect
from edgepress.compress.pipeline.forward import BatchSplitter
from edgepress.compress.pipeline.last_states import encode, last_states
from edgepress.compress.text.micro_batches import MicroBatch
from edgepress.compress.text.token_batch import TokenBatch
from edgepress.files.hashed_tree import hash_tree
from edgepress.terminal.progress import Silent
from safetensors.torch import load_file
from torch import Tensor

from ...conftest import save_sounds, sentences
from ..conftest import Watched

pytestmark = pytest.mark.chain

Make = Callable[..., Path]
FORMS: list[tuple[str, dict[str, Any]]] = [
    ("t5", {}),
    ("t5", {"feed_forward_proj": "gated-gelu", "own_head": True}),
    ("mt5", {"feed_forward_proj": "gated-silu"}),
    ("bart", {"activation_function": "relu"}),
    ("marian", {"activation_function": "swish", "scale_embedding": False}),
]
CPU = torch.device("cpu")


def rows(lengths: Sequence[int], seed: int) -> TokenBatch:
    ids = torch.randint(3, 30, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros_like(ids)
    for row, length in zip(mask, lengths, strict=True):
        row[:length] = 1
    return TokenBatch(ids, mask)


def paired(read: Sequence[int], written: Sequence[int]) -> TokenBatch:
    batch = rows(read, 1)
    return TokenBatch(batch.input_ids, batch.attention_mask, None, rows(written, 2))


def theirs(model: Any, batch: TokenBatch) -> Tensor:
    """Logits of the real tokens that are written."""
    from transformers import AutoModelForSeq2SeqLM

    plain = AutoModelForSeq2SeqLM.from_pretrained(model).eval()
    written, start = batch.written(), plain.config.decoder_start_token_id
    with torch.no_grad():
        logits: Tensor = plain(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            decoder_input_ids=behind_start(written.input_ids, start),
        ).logits
    return logits[written.attention_mask.bool()]


BATCHES = [
    rows([1], 0),
    rows([5, 3], 0),
    rows([40, 7, 40], 0),
    paired([150, 31], [9, 17]),
    paired([4, 5], [150, 1]),
]


@pytest.mark.parametrize(("family", "changes"), FORMS)
def test_logits_are_those_of_transformers(
    family: str, changes: dict[str, Any], make_encoder_decoder: Make, tmp_path: Path
) -> None:
    model = make_encoder_decoder(tmp_path / "m", family, **changes)
    skeleton = Skeleton(WeightSource.open(model), CPU)
    for number, batch in enumerate(BATCHES):
        states = last_states(skeleton, [batch], tmp_path / f"{number}", Silent(), "reading")
        with skeleton.head() as head:
            found, want = head(states), theirs(model, batch)
        assert found.shape == want.shape
        assert float((found - want).abs().max()) < 1e-5 * max(1.0, float(want.abs().max()))


def test_what_was_encoded_once_is_decoded_again(
    pico_whisper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, rounded = WeightSource.open(pico_whisper), WeightSource.open(pico_whisper)
    rounded.embedding_scheme = Scheme.parse("W4A16-g32")
    folder = str(save_sounds(tmp_path / "wav", 5))
    batches = calibration_of_files(source, folder, samples=5, seed=0, batch_size=2).batches
    models = [Skeleton(source, CPU), Skeleton(rounded, CPU)]
    found = [
        last_states(one, batches, tmp_path / "s", Silent(), "", rounded=one is models[1]) for one in models
    ]
    assert not torch.equal(*found)
    encoded, filled = encode(models[0], batches, tmp_path / "e", Silent(), ""), list[str]()
    for one, want in zip(models, found, strict=True):
        fill = one.fill
        monkeypatch.setattr(one, "fill", lambda prefix, fill=fill: filled.append(prefix) or fill(prefix))
        rows = last_states(
            one, batches, tmp_path / "s", Silent(), "", rounded=one is models[1], encoded=encoded
        )
        assert torch.equal(rows, want)
    for block in source.anatomy.blocks:
        assert filled.count(block.prefix) == (0 if block.cross is None else len(models))


def test_statistics_of_what_the_decoder_reads_are_of_the_encoder_s_tokens(
    make_encoder_decoder: Make, tmp_path: Path
) -> None:
    path = make_encoder_decoder(tmp_path / "m")
    skeleton, batch = Skeleton(WeightSource.open(path), CPU), paired([9, 4], [3, 6])
    stream = Stream.capture(tmp_path / "s", skeleton, [batch])
    for block in skeleton.anatomy.blocks[:3]:
        stream.advance(block.index, skeleton.fill(block.prefix), BatchSplitter(print))
    block = skeleton.anatomy.blocks[3]
    assert block.cross is not None
    module = skeleton.fill(block.prefix)
    linears = {linear.name: skeleton.submodule(linear.name) for linear in block.linears()}
    side = Side(module, linears, lambda: stream.batches(3))
    names = [block.attention.q.name, block.cross.q.name, block.cross.k.name, block.mlp.up.name]
    found = collect(side, None, block, dict.fromkeys(names, ("gram",)), BatchSplitter(print))
    whole = load_model(path)
    with torch.no_grad():
        states = whole.encoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask)[0]
    read = states[batch.attention_mask.bool()]
    assert torch.allclose(found[block.cross.k.name]["gram"], read.T @ read / len(read), atol=1e-4)
    assert found[block.cross.v.name]["gram"] is found[block.cross.k.name]["gram"]
    assert not torch.allclose(found[block.cross.q.name]["gram"], found[block.cross.k.name]["gram"], atol=0.1)


def test_what_left_the_encoder_is_kept_beside_the_decoder_s_states(
    make_encoder_decoder: Make, tmp_path: Path
) -> None:
    path = make_encoder_decoder(tmp_path / "m")
    skeleton, batch = Skeleton(WeightSource.open(path), CPU), paired([9, 4], [3, 6])
    stream = Stream.capture(tmp_path / "s", skeleton, [batch])
    written = load_model(path).shared(behind_start(batch.written().input_ids, 0))
    for block in skeleton.anatomy.blocks[:3]:
        stream.advance(block.index, skeleton.fill(block.prefix), BatchSplitter(print))
    (entering,), (left,) = stream.batches(3), stream.outputs(2)
    assert torch.equal(entering.hidden, written)
    assert left.hidden.shape == (2, 9, 32)
    assert left.mask is not None
    assert torch.equal(left.mask, batch.attention_mask.bool())
    assert entering.mask is not None
    assert torch.equal(entering.mask, batch.written().attention_mask.bool())


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of a text and what is to be written of it."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    texts = sentences(48, seed=4)
    found = [{"text": text, "target": target} for text, target in zip(texts[::2], texts[1::2], strict=True)]
    path.write_text("\n".join(map(json.dumps, found)))
    return path


@pytest.mark.parametrize(("family", "units"), [("t5", 1), ("bart", 3), ("t5", 4)])
def test_a_killed_run_goes_on_in_either_stack_with_the_same_bytes(
    family: str, units: int, make_encoder_decoder: Make, pairs: Path, tmp_path: Path, watched: Watched
) -> None:
    model = str(make_encoder_decoder(tmp_path / "m", family))
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: r\npasses: [{pass: gptq, scheme: W3A16-g16, correction: 1}]\n")
    command: dict[str, Any] = {"recipe": str(recipe), "calibration": str(pairs), "samples": 6, "length": 16}
    whole = compress_model(model, output=tmp_path / "whole", **command)
    with watched("compressing blocks", kill_at=1 + units):
        compress_model(model, output=tmp_path / "o", **command)
    with watched("compressing blocks") as done:
        out = compress_model(model, output=tmp_path / "o", **command)
    assert done == [units, *[1] * (5 - units)]
    assert hash_tree(out) == hash_tree(whole)


def micro_batches() -> list[MicroBatch]:
    found = []
    for number, (read, written) in enumerate([((6, 4), (3, 5)), ((9, 9), (7, 2))]):
        batch = paired(read, written)
        ids, mask = batch.input_ids, batch.attention_mask
        found.append(MicroBatch(number, ids, mask, int(mask.sum()), answers=batch.answers))
    return found


def watched_modules(block: BlockAnatomy) -> dict[str, bool]:
    """By module whether its gradient is that at its input."""
    found = {block.prefix: False, block.attention.q.name: False, block.mlp.down.name: True}
    return found if block.cross is None else found | {block.cross.k.name: False, block.cross.o.name: True}


def of_autograd(path: Path, batches: Sequence[MicroBatch]) -> dict[str, Tensor]:
    """By module the gradients ``[tokens, features]`` in the whole model, in float64."""
    anatomy, model = WeightSource.open(path).anatomy, load_model(path, dtype=torch.float64, cache=False)
    model.requires_grad_(True)
    at_input = {name: there for block in anatomy.blocks for name, there in watched_modules(block).items()}
    states: dict[str, Tensor] = {}
    for name, there in at_input.items():

        def keep(_: object, inputs: Any, output: Any, name: str = name, there: bool = there) -> None:
            states[name] = inputs[0] if there else output[0] if isinstance(output, tuple) else output

        model.get_submodule(module_name(anatomy, name)).register_forward_hook(keep)
    found: dict[str, list[Tensor]] = {name: [] for name in at_input}
    generator = torch.Generator().manual_seed(3)
    for batch in batches:
        written = batch.written()
        real = written.attention_mask.bool()
        given = behind_start(written.input_ids, model.config.decoder_start_token_id)
        ids = {"input_ids": batch.input_ids, "decoder_input_ids": given}
        logits = model(**ids, attention_mask=batch.attention_mask).logits[real].log_softmax(-1)
        drawn = torch.multinomial(logits.detach().exp(), 1, generator=generator)
        gradients = torch.autograd.grad(logits.gather(-1, drawn).sum(), list(states.values()))
        for name, gradient in zip(states, gradients, strict=True):
            of_memory = "decoder" not in name or name.endswith(("EncDecAttention.k", "encoder_attn.k_proj"))
            found[name].append(gradient[batch.attention_mask.bool() if of_memory else real])
    return {name: torch.cat(rows) for name, rows in found.items()}


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_gradients_are_those_of_autograd_through_both_stacks(
    family: str, make_encoder_decoder: Make, tmp_path: Path
) -> None:
    path = make_encoder_decoder(tmp_path / "m", family)

    def kept(block: BlockAnatomy, weight: object) -> dict[str, Kept]:
        return {name: Kept(name, at_input=there) for name, there in watched_modules(block).items()}

    options: dict[str, Any] = {"precision": "float32", "seed": 3, "dtype": torch.float64}
    sweep = BackwardSweep(
        WeightSource.open(path), micro_batches(), CPU, Silent(), tmp_path / "sweep", **options
    )
    files = sweep.run("gradients", kept)
    found = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert largest_error(found, of_autograd(path, micro_batches())) < 1e-6
