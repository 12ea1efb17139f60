"""Every kind of decoder at batch 1 and 3, 1, 7 and 128 new tokens, after caches of 0, 1 and 63 tokens and up
to a full one; and decoders of odd sizes, which work or are refused before any file is written.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgepress.compress.api import compress_model
from edgepress.errors import EdgepressError
from edgepress.export.api import export_bundle
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.engine.decoder import Decoder
from edgepress.runtime.kernels.library import library
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.chain


CONTEXT = 192
IDS = np.random.default_rng(9).integers(0, 300, (3, CONTEXT), dtype=np.int64)
TOLERANCE = 1e-4
ROPE = {"rope_theta": 1e4, "factor": 4.0}
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "linear": ("llama", {"rope_parameters": {**ROPE, "rope_type": "linear"}}),
    "dynamic": ("llama", {"rope_parameters": {**ROPE, "rope_type": "dynamic"}}),
    "yarn": ("llama", {"rope_parameters": {**ROPE, "rope_type": "yarn"}}),
    "llama3": ("llama", {"rope_parameters": {**ROPE, "rope_type": "llama3", **LLAMA3}}),
    "window": ("mistral", {"sliding_window": 24}),
    **{
        name: (name, {})
        for name in ("bitnet", "qwen2", "qwen3", "gemma", "gemma2", "phi", "gpt2", "gpt_neox", "opt")
    },
}
# New tokens after cached ones; the last two fill the context.
CASES = [(depth, new) for depth in (0, 1, 63) for new in (1, 7, 128)]
CASES += [(CONTEXT - 1, 1), (CONTEXT - 128, 128)]

Make = Callable[..., Path]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", [None, "W4A16_ASYM-g32"])
def test_batches_lengths_and_depths(
    kind: str, scheme: str | None, make_decoder: Make, export_graph: Any, tmp_path: Path
) -> None:
    model_type, changes = KINDS[kind]
    sizes = {"num_hidden_layers": 2, "max_position_embeddings": CONTEXT}
    exported = export_graph(make_decoder(tmp_path / "model", model_type, **sizes, **changes), scheme)
    want = exported.source.logits(IDS, activations=False)
    with exported.driver(exact=scheme is not None) as driver:
        for batch in (1, 3):
            for depth, new in CASES:
                if batch > 1 and depth and new > 1:
                    continue  # a cached batch is extended a token at a time, or row by row
                found = driver.logits(IDS[:batch, : depth + new], depth=depth)
                difference = np.abs(found - want[:batch, depth : depth + new]).max()
                assert difference < TOLERANCE, (batch, depth, new)


PROVEN = ("window", "bitnet", "qwen3", "gemma2", "phi", "gpt2", "gpt_neox", "opt")


# Each kind with one set of operators, by turns; with the other it is slow.
@pytest.mark.parametrize(
    ("kind", "operators"),
    [
        pytest.param(kind, operators, marks=() if (place + number) % 2 == 0 else pytest.mark.slow)
        for number, operators in enumerate(("edgepress", "standard"))
        for place, kind in enumerate(PROVEN)
    ],
)
def test_every_kind_is_proven_block_by_block(
    kind: str, operators: str, make_decoder: Make, tmp_path: Path
) -> None:
    if operators == "edgepress" and library() is None:
        pytest.skip("the library of operators was not built here")
    model_type, changes = KINDS[kind]
    sizes = {"num_hidden_layers": 2, "max_position_embeddings": CONTEXT}
    model = make_decoder(tmp_path / "model", model_type, **sizes, **changes)
    checkpoint = compress_model(str(model), scheme="W4A16", group_size=32, output=tmp_path / "w4")
    bundle = export_bundle(checkpoint, output=tmp_path / "bundle", operators=operators)
    parity = Bundle.open(bundle).manifest["parity"]
    assert parity["float"]["parts"] == parity["codes"]["parts"] == 4


@settings(max_examples=25, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    heads=st.sampled_from([1, 2, 3, 6]),
    kv_heads=st.sampled_from([1, 2, 3]),
    head_dim=st.sampled_from([4, 8, 16, 24, 48]),
    hidden=st.sampled_from([16, 40, 96]),
    ffn=st.sampled_from([1, 17, 64]),
    vocab=st.sampled_from([320, 321, 357]),
    tied=st.booleans(),
    window=st.sampled_from([None, 1, 5]),
)
def test_odd_sizes_work_or_leave_nothing(
    tmp_path_factory: pytest.TempPathFactory, make_decoder: Make, **sizes: Any
) -> None:
    folder = tmp_path_factory.mktemp("odd")
    heads, kv_heads = sizes["heads"], sizes["kv_heads"]
    checkpoint = make_decoder(
        folder / "model",
        "mistral",
        num_hidden_layers=1,
        num_attention_heads=max(heads, kv_heads) if heads % kv_heads else heads,
        num_key_value_heads=kv_heads,
        head_dim=sizes["head_dim"],
        hidden_size=sizes["hidden"],
        intermediate_size=sizes["ffn"],
        vocab_size=sizes["vocab"],
        tie_word_embeddings=sizes["tied"],
        sliding_window=sizes["window"],
        max_position_embeddings=32,
    )
    try:
        path = export_bundle(checkpoint, output=folder / "bundle")
    except EdgepressError as error:
        assert error.exit_code == 2, error  # the input cannot be exported; no proof was begun
        assert [found.name for found in folder.iterdir()] == ["model"]
        return
    decoder = Decoder.open(Bundle.open(path), 1)
    assert np.isfinite(decoder.prefill(list(range(31)))).all() and np.isfinite(decoder.step(3)).all()
