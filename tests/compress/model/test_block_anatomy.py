"""What a block's anatomy says of the residual stream, against transformers' modules as they run."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.model.block_anatomy import BlockAnatomy
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.prune.structured.residual_fit import norm_after
from torch import Tensor, nn

pytestmark = pytest.mark.chain

# Where a norm or a scale stands before the sum, or attention and MLP add to the same stream.
ADDS_OTHERWISE = ("gemma2", "granite", "olmo2", "phi", "cohere", "gptj")
DECODERS = ("llama", "gpt2", "opt", "bloom", "mamba", "lfm2", "nemotron", *ADDS_OTHERWISE)
ENCODERS = ("bert", "mpnet", "distilbert", "modernbert", "nomic_bert", "albert")


def points(model: nn.Module, block: BlockAnatomy) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The inputs and the outputs of every module of ``block`` by name, of its first time."""
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}

    def keep(name: str, _: nn.Module, given: tuple[Any, ...], found: Any) -> None:
        if given:
            inputs.setdefault(name, given[0])
        outputs.setdefault(name, found[0] if isinstance(found, tuple) else found)

    for name, module in model.named_modules():
        if name.startswith(block.prefix):
            module.register_forward_hook(partial(keep, name))
    with torch.no_grad():
        model(torch.arange(3, 35).reshape(2, 16))
    return inputs, outputs


@pytest.mark.parametrize("model_type", [*DECODERS, *ENCODERS])
def test_a_linear_adds_to_the_stream_that_its_reader_reads(
    model_type: str,
    make_decoder: Callable[..., Path],
    make_encoder: Callable[..., Path],
    tmp_path: Path,
) -> None:
    make = make_decoder if model_type in DECODERS else make_encoder
    path = make(tmp_path / "m", model_type)
    block, model = WeightSource.open(path).anatomy.blocks[0], load_model(path)
    inputs, outputs = points(model, block)
    readers = {linear.name: block.stream_reader(linear) for linear in block.linears()}
    adding = [linear for linear in block.linears() if readers[linear.name]]
    expected = 0 if model_type in ADDS_OTHERWISE else 1 if block.feed_forward is None else 2
    assert len(adding) == expected
    for linear in adding:
        after = norm_after(block, linear)
        sums = outputs[block.prefix] if after is None else inputs[after.name]
        added = (inputs[str(readers[linear.name])], outputs[linear.name])
        found, stream, output = (states.reshape(-1, states.shape[-1]) for states in (sums, *added))
        assert torch.allclose(found, stream + output, atol=1e-5)
