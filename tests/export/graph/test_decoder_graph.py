"""Decoder graphs against torch, elementwise: families, schemes, batches, cache depths, unequal layers."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from edgepress.compress.model.block_anatomy import Linear
from edgepress.compress.model.kv_scheme import KVScheme
from edgepress.compress.numbers.fake_quant import wrap
from edgepress.errors import ShapeError, UnknownName
from edgepress.export.graph.forms.providers import CPU, OWN, ProviderForm
from edgepress.export.proof.distances import NOISE, divergence, log_softmax
from edgepress.export.proof.drive import GraphDriver
from edgepress.runtime.session.session import open_session
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.chain


IDS = np.random.default_rng(5).integers(0, 300, (3, 96), dtype=np.int64)
TOLERANCE = 5e-5


FAMILIES = [
    "bitnet",
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gpt2",
    "gpt_neox",
    "opt",
    "phi",
]


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize(
    ("scheme", "form"), [(None, CPU), ("W4A16-g32", CPU), (None, OWN), ("W4A16-g32", OWN)]
)
def test_families(
    model_type: str,
    scheme: str | None,
    form: ProviderForm,
    make_decoder: Callable[..., Path],
    export_graph: Any,
    tmp_path: Path,
) -> None:
    changes = {"sliding_window": 24} if model_type == "mistral" else {}
    exported = export_graph(make_decoder(tmp_path / "model", model_type, **changes), scheme, form=form)
    want = exported.source.logits(IDS[:1], activations=False)
    with exported.driver(exact=scheme is not None) as driver:
        assert np.abs(driver.logits(IDS[:1]) - want).max() < TOLERANCE
        # Past the window, token by token from the cache, and in chunks.
        assert np.abs(driver.logits(IDS[:1, :41], depth=40) - want[:, 40:41]).max() < TOLERANCE
        assert np.abs(driver.logits(IDS[:1, :80], depth=30) - want[:, 30:80]).max() < TOLERANCE


@pytest.mark.parametrize("kv_dtype", ["float32", "float16", "int8", "uint8"])
@pytest.mark.parametrize("model_type", ["llama", "gemma2", "gpt2", "ernie4_5"])
def test_our_own_operators_answer_alike_in_chunks_and_token_by_token(
    model_type: str, kv_dtype: str, make_decoder: Callable[..., Path], export_graph: Any, tmp_path: Path
) -> None:
    checkpoint = make_decoder(tmp_path / "model", model_type)
    kv = {"int8": KVScheme(bits=8), "uint8": KVScheme(bits=4)}.get(kv_dtype)
    exported = export_graph(checkpoint, "W3A16-g32", "W8A16-g32", kv=kv, kv_dtype=kv_dtype, form=OWN)
    want = exported.source.logits(IDS[:1], activations=False, cache=kv is not None)
    with exported.driver() as driver:
        whole = driver.logits(IDS[:1])
        for depth in (1, 7, 40, 80):
            assert np.array_equal(driver.logits(IDS[:1], depth=depth), whole[:, depth:])
        assert np.array_equal(driver.logits(IDS)[0], whole[0])
        assert np.array_equal(driver.logits(IDS[:, :41], depth=40)[0], whole[0, 40:41])
    near = divergence(log_softmax(want[0]), log_softmax(whole[0])).mean()
    assert near < NOISE * 0.02


@pytest.mark.parametrize("form", [CPU, OWN])
def test_activations_in_float32_are_not_rounded(
    form: ProviderForm, make_decoder: Callable[..., Path], export_graph: Any, tmp_path: Path
) -> None:
    checkpoint = make_decoder(tmp_path / "model")
    exported = export_graph(checkpoint, "W4A16-g32", "W8A16-g32", form=replace(form, activations="float32"))
    want = exported.source.logits(IDS[:1], activations=False)
    with exported.driver() as driver:
        assert np.abs(driver.logits(IDS[:1]) - want).max() < TOLERANCE
        assert np.abs(driver.logits(IDS[:1, :41], depth=40) - want[:, 40:41]).max() < TOLERANCE


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0}}),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}),
        ("llama", {"rope_parameters": {**YARN, "attention_factor": 0.8}}),
        ("llama", {"rope_parameters": {**YARN, "mscale": 0.7, "mscale_all_dim": 1.1, "truncate": False}}),
        (
            "llama",
            {
                "rope_parameters": {
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 32,
                }
            },
        ),
        ("phi", {"rope_parameters": {**YARN, "partial_rotary_factor": 0.5}}),
        ("bitnet", {"hidden_act": "silu", "attention_bias": True, "num_key_value_heads": 4}),
        ("phi", {"num_attention_heads": 2, "num_key_value_heads": 1}),
        ("gpt_neox", {"use_parallel_residual": False, "tie_word_embeddings": True}),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
        ("gpt2", {"scale_attn_weights": False}),
        ("gemma2", {"attn_logit_softcapping": None, "final_logit_softcapping": None, "attention_bias": True}),
        ("opt", {"enable_bias": False, "tie_word_embeddings": False}),
    ],
)
def test_variants(
    model_type: str,
    changes: dict[str, Any],
    make_decoder: Callable[..., Path],
    export_graph: Any,
    tmp_path: Path,
) -> None:
    if "rope_parameters" in changes:
        changes = {"rope_parameters": {"rope_theta": 1e4, **changes["rope_parameters"]}}
    exported = export_graph(make_decoder(tmp_path / "model", model_type, num_hidden_layers=2, **changes))
    want = exported.source.logits(IDS, activations=False)
    with exported.driver() as driver:
        assert np.abs(driver.logits(IDS) - want).max() < TOLERANCE
        assert np.abs(driver.logits(IDS[:, :41], depth=40) - want[:, 40:41]).max() < TOLERANCE


def test_a_fused_matrix_of_every_storage(
    make_decoder: Callable[..., Path], export_graph: Any, tmp_path: Path
) -> None:
    checkpoint = make_decoder(tmp_path / "model", "gpt_neox")
    schemes = {"0": "W8A8", "1": "W4A16_ASYM-g32", "2": "W2A16-g32"}
    exported = export_graph(checkpoint, lambda linear: schemes[linear.name.split(".")[2]])
    want = exported.source.logits(IDS[:1], activations=False)
    with exported.driver(exact=True) as driver:
        assert np.abs(driver.logits(IDS[:1]) - want).max() < TOLERANCE


@pytest.mark.parametrize(
    "scheme",
    [
        "W4A16-g16",
        "W4A16_ASYM-g32",
        "W2A16-g32",
        "W2A16_ASYM-g64",
        "W3A16-g32",
        "W8A16-g64",
        "W4A16-channel",
        "W8A8",
    ],
)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("form", [CPU, OWN])
def test_schemes(
    scheme: str,
    tied: bool,
    form: ProviderForm,
    make_decoder: Callable[..., Path],
    export_graph: Any,
    torch_logits: Any,
    tmp_path: Path,
) -> None:
    checkpoint = make_decoder(
        tmp_path / "model", tie_word_embeddings=tied, attention_bias=True, mlp_bias=True, num_hidden_layers=2
    )
    exported = export_graph(checkpoint, scheme, "W8A16-g32", form=form)
    want = exported.source.logits(IDS[:2], activations=False)
    with exported.driver(exact=True) as driver:
        assert np.abs(driver.logits(IDS[:2]) - want).max() < TOLERANCE
    # A scale a token is the coarsest rounding that a kernel does; which way a tie falls differs by processor.
    model = exported.source.model(activations=False)
    names = [linear.name for linear in exported.source.anatomy.linears()]
    for name in names:
        wrap(model, name)
    rounding = divergence(log_softmax(want), log_softmax(torch_logits(model, IDS[:2])))
    with exported.driver() as driver:
        shipped = divergence(log_softmax(want), log_softmax(driver.logits(IDS[:2])))
    assert 0 < shipped.mean() <= NOISE * rounding.mean()


@pytest.mark.parametrize(("bits", "rows"), [(2, 96), (3, 97), (4, 100)])
def test_words_of_a_trellis(
    bits: int,
    rows: int,
    make_decoder: Callable[..., Path],
    export_graph: Any,
    torch_logits: Any,
    tmp_path: Path,
) -> None:
    """Rows that are no whole words are a product of their own; what is shared is rotated once."""
    checkpoint = make_decoder(tmp_path / "model", num_hidden_layers=2, intermediate_size=96)
    exported = export_graph(checkpoint, f"T{bits}A16", "W8A16-g32", form=OWN)
    want = exported.source.logits(IDS[:2], activations=False)
    with exported.driver(exact=True) as driver:
        assert np.abs(driver.logits(IDS[:2]) - want).max() < TOLERANCE
    kinds = [node.op_type for node in ir.load(exported.path).graph]
    assert kinds.count("RotateInputs") == 2 * 4


def test_a_scheme_for_each_layer(pico_llama: Path, export_graph: Any) -> None:
    schemes = {
        "0.self_attn.k_proj": "W8A16-g32",
        "0.mlp.down_proj": "W2A16_ASYM-g32",
        "0.mlp.up_proj": "W5A16_ASYM-g32",
        "1.self_attn.q_proj": None,
        "1.self_attn.o_proj": "W6A16-g32",
        "1.mlp.up_proj": "W3A16-g64",
        "2.self_attn.v_proj": "W8A8",
        "2.mlp.gate_proj": "W8A8",
        "2.mlp.down_proj": None,
    }

    def scheme_of(linear: Linear) -> str | None:
        return schemes.get(linear.name.removeprefix("model.layers."), "W4A16-g32")

    exported = export_graph(pico_llama, scheme_of, "W4A16_ASYM-g32")
    want = exported.source.logits(IDS[:1], activations=False)
    with exported.driver(exact=True) as driver:
        assert np.abs(driver.logits(IDS[:1]) - want).max() < TOLERANCE


def test_rows_of_unequal_length(pico_llama: Path, export_graph: Any) -> None:
    exported = export_graph(pico_llama)
    want = exported.source.logits(IDS, activations=False)
    with exported.driver() as driver:
        found = driver.logits(IDS, lengths=[96, 5, 40])
        for row, length in enumerate((96, 5, 40)):
            assert np.abs(found[row, :length] - want[row, :length]).max() < TOLERANCE


PROMPTS = (40, 5, 17)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gemma2", "gpt_neox", "phi", "opt"])
@pytest.mark.parametrize("form", [CPU, OWN])
def test_a_batch_that_is_padded_on_either_side(
    model_type: str,
    side: str,
    form: ProviderForm,
    make_decoder: Callable[..., Path],
    export_graph: Any,
    tmp_path: Path,
) -> None:
    """As other clients feed it: the cache comes back as it was given, and the mask grows by a column."""
    exported = export_graph(make_decoder(tmp_path / "model", model_type, num_hidden_layers=2), form=form)
    want = exported.source.logits(IDS[:, :41], activations=False)
    ids, mask = np.full((3, 40), 7, np.int64), np.zeros((3, 40), np.int64)
    for row, length in enumerate(PROMPTS):
        place = slice(40 - length, 40) if side == "left" else slice(0, length)
        ids[row, place], mask[row, place] = IDS[row, :length], 1
    session = open_session(exported.path, threads=1)
    pasts = GraphDriver(session).empty_cache(3, 48 if form == OWN else 0)  # which grows by itself elsewhere
    feeds = {"input_ids": ids, "attention_mask": mask, **pasts}
    every = session.run(["logits"], {**feeds, "logits_to_keep": np.array([0], np.int64)})[0]
    last, *presents = session.run(["logits", *(_present(name) for name in pasts)], feeds)
    for row, length in enumerate(PROMPTS):
        place = slice(40 - length, 40) if side == "left" else slice(0, length)
        assert np.abs(every[row, place] - want[row, :length]).max() < TOLERANCE
        assert np.abs(last[row, 0] - want[row, length - 1]).max() < TOLERANCE
    feeds = dict(zip(pasts, presents, strict=True))
    feeds["input_ids"] = np.array([[IDS[row, length]] for row, length in enumerate(PROMPTS)])
    feeds["attention_mask"] = np.concatenate([mask, np.ones((3, 1), np.int64)], axis=1)
    following = session.run(["logits"], feeds)[0]
    for row, length in enumerate(PROMPTS):
        assert np.abs(following[row, 0] - want[row, length]).max() < TOLERANCE


def _present(name: str) -> str:
    return name.replace("past_key_values", "present")


def test_positions_that_are_kept(pico_llama: Path, export_graph: Any) -> None:
    exported = export_graph(pico_llama)
    session = open_session(exported.path, threads=1)
    driver = GraphDriver(session)
    whole = driver.logits(IDS[:2, :10])
    feeds = {
        "input_ids": IDS[:2, :10],
        "attention_mask": np.ones((2, 10), np.int64),
        **driver.empty_cache(2, 10),
    }
    np.testing.assert_allclose(session.run(["logits"], feeds)[0], whole[:, -1:], atol=1e-5)
    for kept, rows in ((3, slice(-3, None)), (10, slice(None)), (99, slice(None))):
        found = session.run(["logits"], {**feeds, "logits_to_keep": np.array([kept], np.int64)})[0]
        np.testing.assert_allclose(found, whole[:, rows], atol=1e-5)


def test_layers_of_unequal_size(make_decoder: Callable[..., Path], export_graph: Any, tmp_path: Path) -> None:
    checkpoint = make_decoder(tmp_path / "model")
    tensors = load_file(checkpoint / "model.safetensors")
    rows = {"q_proj": 32, "k_proj": 16, "v_proj": 16, "gate_proj": 80, "up_proj": 80}
    columns = {"o_proj": 32, "down_proj": 80}
    for name, tensor in tensors.items():
        part = name.split(".")[-2]
        if name.startswith("model.layers.1.") and part in {**rows, **columns}:
            cut = tensor[: rows[part]] if part in rows else tensor[:, : columns[part]]
            tensors[name] = cut.contiguous()
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})
    whole, cut_block = {"ffn": 128, "heads": 4, "kv_heads": 2}, {"ffn": 80, "heads": 2, "kv_heads": 1}
    config = json.loads((checkpoint / "config.json").read_text())
    config |= {"edgepress_blocks": [whole, cut_block, whole]}
    (checkpoint / "config.json").write_text(json.dumps(config))
    exported = export_graph(checkpoint, "W4A16-g16")
    blocks = exported.source.anatomy.blocks
    assert [block.attention.kv_heads for block in blocks] == [2, 1, 2]
    assert [block.mlp.up.out_features for block in blocks] == [128, 80, 128]
    want = exported.source.logits(IDS[:1], activations=False)
    with exported.driver(exact=True) as driver:
        assert np.abs(driver.logits(IDS[:1]) - want).max() < TOLERANCE


@pytest.mark.parametrize(("scheme", "splits"), [(None, 0), ("W4A16-g32", 1), ("W8A8", 0)])
def test_only_products_of_shared_codes_are_split(
    pico_llama: Path, export_graph: Any, scheme: str | None, splits: int
) -> None:
    exported = export_graph(pico_llama, scheme)
    kinds = [node.op_type for node in ir.load(exported.path).graph]
    assert kinds.count("Split") == splits * len(exported.source.anatomy.blocks)


def test_about_ten_nodes_a_layer(pico_llama: Path, export_graph: Any) -> None:
    exported = export_graph(pico_llama, "W4A16-g32", "W8A16-g32")
    kinds = [node.op_type for node in ir.load(exported.path).graph]
    layers = len(exported.source.anatomy.blocks)
    assert kinds.count("MatMulNBits") == 4 * layers + 1
    assert kinds.count("GroupQueryAttention") == layers
    assert len(kinds) < 10 * layers + 44
    levels = {
        node.attributes["accuracy_level"].as_int()
        for node in ir.load(exported.path).graph
        if node.op_type == "MatMulNBits"
    }
    assert levels == {4}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"head_dim": 24}, ShapeError),
        ({"head_dim": 20}, ShapeError),
        ({"hidden_act": "relu6"}, UnknownName),
    ],
)
def test_what_no_kernel_can_do_is_refused_before_weights_are_read(
    changes: dict[str, Any],
    error: type[Exception],
    make_decoder: Callable[..., Path],
    export_graph: Any,
    tmp_path: Path,
) -> None:
    checkpoint = make_decoder(tmp_path / "model", **changes)
    with pytest.raises(error):
        export_graph(checkpoint)
    assert not (tmp_path / "model.onnx").exists()


def test_longrope_goes_as_far_as_the_pretraining(
    make_decoder: Callable[..., Path], export_graph: Any, tmp_path: Path
) -> None:
    checkpoint = make_decoder(tmp_path / "model")
    config = json.loads((checkpoint / "config.json").read_text())
    config["rope_parameters"] = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0] * 8,
        "long_factor": [2.0] * 8,
        "original_max_position_embeddings": 64,
    }
    (checkpoint / "config.json").write_text(json.dumps(config))
    exported = export_graph(checkpoint)
    assert exported.source.anatomy.max_positions == 64
    want = exported.source.logits(IDS[:1, :64], activations=False)
    with exported.driver() as driver:
        assert np.abs(driver.logits(IDS[:1, :64]) - want).max() < TOLERANCE


@pytest.mark.parametrize("function", ["silu", "gelu", "gelu_pytorch_tanh", "relu", "quick_gelu", "tanh"])
def test_activation_functions(
    function: str, make_decoder: Callable[..., Path], export_graph: Any, tmp_path: Path
) -> None:
    exported = export_graph(make_decoder(tmp_path / "model", hidden_act=function, num_hidden_layers=1))
    want = exported.source.logits(IDS[:1, :9], activations=False)
    with exported.driver() as driver:
        assert np.abs(driver.logits(IDS[:1, :9]) - want).max() < TOLERANCE
