"""Links and folding: any positive factors leave the function of the whole model, for every family."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.grid import quantize
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.pipeline.block import Block
from edgepress.compress.pipeline.block_pass import BlockPass
from edgepress.compress.pipeline.journal import Journal
from edgepress.compress.pipeline.stage import assemble
from edgepress.compress.pipeline.sweep import Sweep
from edgepress.compress.solve.folding import fold, foldable_links
from edgepress.compress.solve.links import links
from edgepress.files.storage import read_json
from edgepress.terminal.progress import Silent

FOUR = {"num_experts": 4, "num_experts_per_tok": 2}
# Family, changes of its config, and how many links a block has.
FAMILIES: list[tuple[str, dict[str, Any], int]] = [
    ("llama", {}, 4),
    ("llama", {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1}, 4),
    ("qwen3", {"head_dim": 32}, 4),
    ("gemma2", {}, 4),
    ("bitnet", {}, 4),  # norms before o and down
    ("opt", {}, 4),  # ReLU lets positive factors pass
    ("phi", {}, 2),  # one norm for attention and MLP; GELU
    ("gpt2", {}, 3),
    ("gpt_neox", {}, 3),
    ("bert", {}, 1),  # norms also give the residual
    ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}, 7),
    ("granitemoe", {"num_local_experts": 4, "num_experts_per_tok": 2}, 7),
    ("qwen2_moe", {**FOUR, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 64}, 8),
    ("qwen3_moe", {**FOUR, "moe_intermediate_size": 32}, 7),
    ("olmoe", {**FOUR, "intermediate_size": 32}, 7),
    ("gpt_oss", {}, 3),  # up is clamped
    ("deepseek_v3", {}, 6),  # latent attention; its first block is dense
]


class Fold(BlockPass):
    """Folds random factors into every link; the original, kept beside it, follows."""

    def apply(self, block: Block) -> None:
        block.original = copy.deepcopy(block.module)
        self.fold(block)
        other = dict(block.original.named_parameters())
        for name, value in block.module.named_parameters():
            assert torch.allclose(other[name], value, rtol=1e-5, atol=1e-7), name
        block.original = None

    def fold(self, block: Block) -> None:
        generator = torch.Generator().manual_seed(block.anatomy.index)
        for link in links(block.anatomy):
            channels = block.weight(link.readers[0]).shape[1]
            factors = torch.empty(channels).uniform_(0.5, 2, generator=generator)
            before = [block.weight(reader).clone() for reader in link.readers]
            spread = fold(block, link, link.gathered(factors))
            for reader, old in zip(link.readers, before, strict=True):
                assert torch.allclose(block.weight(reader), old * spread)


def folded(path: Path, work: Path) -> WeightSource:
    source = WeightSource.open(path)
    steps: Any = [[("fold", Fold())]]
    work.mkdir()
    journal = Journal.open(work, "key")
    result = Sweep(source, steps, {}, None, torch.device("cpu"), journal, Silent()).run()
    assemble(source, result, work / "out")
    return source


@pytest.mark.chain
@pytest.mark.parametrize(("model_type", "changes", "count"), FAMILIES)
def test_the_function_stays_and_the_weights_move(
    model_type: str,
    changes: dict[str, Any],
    count: int,
    make_decoder: Callable[..., Path],
    make_encoder: Callable[..., Path],
    tmp_path: Path,
) -> None:
    make = make_encoder if model_type == "bert" else make_decoder
    path = make(tmp_path / "model", model_type, **changes)
    source = folded(path, tmp_path / "work")
    assert len(list(links(source.anatomy.blocks[0]))) == count
    ids = torch.arange(5, 45).view(2, 20)
    with torch.no_grad():
        expected, actual = (load_model(where)(ids)[0] for where in (path, tmp_path / "work" / "out"))
    assert float((expected - actual).abs().max()) < 2e-4 * float(expected.abs().max())
    after = WeightSource.open(tmp_path / "work" / "out")
    for link in links(source.anatomy.blocks[1]):
        for reader in link.readers:
            ratio = after.dense(reader.name) / source.dense(reader.name)
            assert float(ratio.std()) > 0.1, reader.name


@pytest.mark.chain
@pytest.mark.parametrize(("model_type", "counts"), [("t5", (4, 6)), ("bart", (1, 2))])
def test_links_to_an_encoder_keep_the_function_too(
    model_type: str, counts: tuple[int, int], make_encoder_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_encoder_decoder(tmp_path / "model", model_type)
    blocks = folded(path, tmp_path / "work").anatomy.blocks
    assert (len(list(links(blocks[0]))), len(list(links(blocks[-1])))) == counts
    ids = torch.arange(5, 25).view(2, 10)
    with torch.no_grad():
        expected, actual = (
            load_model(where)(ids, decoder_input_ids=ids[:, :7])[0]
            for where in (path, tmp_path / "work" / "out")
        )
    assert float((expected - actual).abs().max()) < 2e-4 * float(expected.abs().max())


def single_block(path: Path) -> tuple[Block, Any]:
    """The first block of a model, its norms stored in bfloat16."""
    source = WeightSource.open(path)
    anatomy = source.anatomy.blocks[0]
    model = load_model(path)
    linears = {linear.name: model.get_submodule(linear.name) for linear in anatomy.linears()}
    stored = {f"{norm.name}.weight": torch.bfloat16 for norm in anatomy.norms()}
    return Block(anatomy, model.get_submodule(anatomy.prefix), linears, stored_types=stored), anatomy  # type: ignore[arg-type]


@pytest.mark.parametrize("model_type", ["llama", "gemma"])
def test_readers_get_what_a_rounded_norm_really_lost(
    model_type: str, make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    block, anatomy = single_block(make_decoder(tmp_path, model_type))
    link = next(links(anatomy))
    name, offset = f"{anatomy.norm1.name}.weight", anatomy.norm1.offset
    norm, reader = offset + block.parameter(name), block.weight(link.readers[0]).clone()
    factors = torch.linspace(0.3, 3, len(norm))
    fold(block, link, factors)
    rounded = block.parameter(name)
    assert torch.equal(rounded, rounded.bfloat16().float())
    product = (offset + rounded) * block.weight(link.readers[0])
    assert torch.allclose(product, norm * reader, rtol=1e-5)


def test_a_norm_channel_of_zero_stays_zero(pico_llama: Path) -> None:
    block, anatomy = single_block(pico_llama)
    link = next(links(anatomy))
    name = f"{anatomy.norm1.name}.weight"
    value = block.parameter(name).clone()
    value[3] = 0
    block.set_parameter(name, value)
    spread = fold(block, link, torch.full_like(value, 2.0))
    assert float(block.parameter(name)[3]) == 0 and bool(torch.isfinite(spread).all())


def test_what_is_quantized_is_not_folded(pico_llama: Path) -> None:
    block, anatomy = single_block(pico_llama)
    found = list(links(anatomy))
    assert [link for link, _ in foldable_links(block, lambda linear: True)] == found
    v = anatomy.attention.v
    block.set_quantized(v, quantize(block.weight(v), Scheme.parse("W4A16-g32")))
    assert [link for link, _ in foldable_links(block, lambda linear: True)] == found[2:]


@pytest.mark.chain
@pytest.mark.parametrize("first", ["smoothquant", "awq"])
def test_a_correction_after_folding_compares_like_with_like(
    pico_llama: Path, pico_text: Path, tmp_path: Path, first: str
) -> None:
    kl = []
    for strength in (0, 1):
        recipe = tmp_path / f"{strength}.yaml"
        fold_first = {"pass": first, "quantize": False} | ({"scheme": "W3A16-g16"} if first == "awq" else {})
        gptq = {"pass": "gptq", "scheme": "W3A16-g16", "correction": strength}
        recipe.write_text(yaml.safe_dump({"name": "folded", "passes": [fold_first, gptq]}))
        path = compress_model(
            str(pico_llama),
            recipe=str(recipe),
            output=tmp_path / f"{strength}",
            calibration=str(pico_text),
            samples=32,
            length=32,
        )
        kl.append(read_json(path / "edgepress.json")["steps"][1]["damage"]["kl"])
    assert kl[1] < kl[0]
