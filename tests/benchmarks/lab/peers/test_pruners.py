"""Tools that prune: what they are asked, and how the share of channels follows from that of weights."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from edgepress.benchmarks.lab.peers.pruners import torch_pruning
from edgepress.benchmarks.lab.peers.workspace import peers
from edgepress.compress.model.torch_model import load_model


def test_every_tool_says_what_it_needs_and_offers() -> None:
    assert set(peers("pruners")) == {"llm_compressor", "torch_pruning"}
    for module in peers("pruners").values():
        assert module.VARIANTS and module.PACKAGES and module.TITLE and module.DISTRIBUTIONS


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_the_blocks_keep_their_share(
    kind: str, make_decoder: Callable[..., Path], make_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    path = (make_encoder if kind == "bert" else make_decoder)(tmp_path / "m", kind)
    model = load_model(path)
    makers = torch_pruning.channel_makers(model)
    ratio = torch_pruning.pruned_share(model, makers, 0.7)
    blocks = next(one for one in model.modules() if isinstance(one, torch.nn.ModuleList))
    linears = [one for one in blocks.modules() if isinstance(one, torch.nn.Linear)]
    total = sum(one.weight.numel() for one in linears)
    mlps = sum(one.weight.numel() for one in linears if makers[0].out_features in one.weight.shape)
    assert total - ratio * mlps == pytest.approx(0.7 * total)
    assert not any(torch_pruning.is_kept(maker, makers) for maker in makers)
