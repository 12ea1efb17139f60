"""The anatomy of each family against the modules that transformers builds from the same checkpoint."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from edgepress.compress.model.anatomy import Anatomy, LogitForm, module_name, stored_name
from edgepress.compress.model.block_anatomy import Norm
from edgepress.compress.model.families._layer_norm_decoder import linear_biases
from edgepress.compress.model.family import anatomy_of
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import CheckpointError, UnknownName

LLAMA_LIKE = ("llama", "mistral", "qwen2", "qwen3", "gemma", "bitnet", "ernie4_5", "helium")
OTHERS = ("gptj", "granite", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "opt", "phi", "phi3", "smollm3")
BEHIND = ("olmo2", "olmo3", "exaone4")
OTHERS += (
    "ministral",
    "ministral3",
    "bloom",
    "mpt",
    "falcon",
    "stablelm",
    "starcoder2",
    "cohere",
    "cohere2",
    "nemotron",
    "glm4",
    "lfm2",
    "mamba",
    "mamba2",
    "jamba",
)
DECODERS = (*LLAMA_LIKE, *OTHERS, *BEHIND)
ENCODERS = ("bert", "roberta", "distilbert", "xlm-roberta", "camembert", "electra", "mpnet")
# Family → what its config has besides, the order of its blocks, and what each sees to its sides.
ROPE_ENCODERS: dict[str, tuple[dict[str, Any], list[str], list[int | None]]] = {
    "modernbert": (
        {"local_attention": 24, "num_hidden_layers": 4},
        ["late", *["pre"] * 3],
        [None, 12, 12, None],
    ),
    "eurobert": ({"num_key_value_heads": 2}, ["pre"] * 2, [None] * 2),
    "nomic_bert": ({}, ["post"] * 2, [None] * 2),
    "gte": ({}, ["post"] * 2, [None] * 2),
}
FIRST_POSITIONS = {"roberta": 1, "xlm-roberta": 1, "camembert": 1, "mpnet": 2}  # where padding is token 0
PREFIXES = {"xlm-roberta": "roberta", "camembert": "roberta"}
Config = dict[str, Any]
Shapes = dict[str, tuple[int, ...]]


def opened(path: Path) -> tuple[Anatomy, SimpleNamespace]:
    source = WeightSource.open(path)
    return source.anatomy, SimpleNamespace(config=source.reader.config, shapes=source.shapes)


def check_against(model: Any, anatomy: Anatomy) -> None:
    """Every linear and norm of every transformers block is in the anatomy, with size, bias, kind and eps."""
    import torch
    from transformers.pytorch_utils import Conv1D

    blocks = model.get_submodule(anatomy.blocks[0].stack)
    assert len(blocks) == len(anatomy.blocks)
    for block, module in zip(anatomy.blocks, blocks, strict=True):
        assert module is model.get_submodule(block.prefix)
        kinds = torch.nn.Linear, Conv1D
        linears = {name: part for name, part in module.named_modules() if isinstance(part, kinds)}
        mine = {linear.name.removeprefix(block.prefix + "."): linear for linear in block.linears()}
        for name in getattr(block.mixer, "own_linears", tuple)():  # which transformers never calls
            del linears[name.removeprefix(block.prefix + ".")]
        assert mine.keys() == linears.keys()
        for name, part in linears.items():
            shape = part.weight.T.shape if isinstance(part, Conv1D) else part.weight.shape
            assert (mine[name].out_features, mine[name].in_features) == tuple(shape)
            assert mine[name].bias == (part.bias is not None)
        norms = list(block.norms())
        check_norms(model, norms)
        held = {name for name, part in module.named_modules() if "norm" in type(part).__name__.lower()}
        assert {item.name.removeprefix(block.prefix + ".") for item in norms} == held


def check_norms(model: Any, norms: list[Norm]) -> None:

    for item in norms:
        part = model.get_submodule(item.name)
        is_layer = "LayerNorm" in type(part).__name__ and "RMS" not in type(part).__name__
        assert item.kind == ("layer" if is_layer else "rms")
        assert item.eps == pytest.approx(part.eps if hasattr(part, "eps") else part.variance_epsilon)
        assert item.offset == type(part).__name__.startswith(("Gemma", "NemotronLayerNorm1P"))
        assert item.bias == (getattr(part, "bias", None) is not None)


@pytest.mark.parametrize("model_type", DECODERS)
def test_decoder_matches_transformers(
    model_type: str, make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    anatomy, _ = opened(make_decoder(tmp_path, model_type))
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    check_against(model, anatomy)
    config = model.config
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert (anatomy.kind, anatomy.tied) == ("decoder", tied)
    assert module_name(anatomy, str(anatomy.head)) == "lm_head"
    assert stored_name(anatomy, "lm_head") == anatomy.head
    assert (anatomy.hidden_size, anatomy.vocab_size) == (config.hidden_size, config.vocab_size)
    if not model_type.startswith("mamba"):
        assert anatomy.max_positions == config.max_position_embeddings
    assert model.get_submodule(anatomy.embedding) is model.get_input_embeddings()
    assert anatomy.final_norm is not None
    check_norms(model, [anatomy.final_norm])


@pytest.mark.parametrize("model_type", LLAMA_LIKE)
def test_llamas_form(model_type: str, make_decoder: Callable[..., Path], tmp_path: Path) -> None:
    from transformers import AutoConfig

    anatomy, _ = opened(make_decoder(tmp_path, model_type))
    config = AutoConfig.from_pretrained(tmp_path)
    assert anatomy.rope is not None
    assert anatomy.rope.theta == config.rope_parameters["rope_theta"]
    assert anatomy.rope.dim == config.head_dim and not anatomy.rope.scaling
    for block in anatomy.blocks:
        attention = block.attention
        sizes = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        assert (attention.heads, attention.kv_heads, attention.head_dim) == sizes
        assert (block.order, block.mlp.activation) == ("pre", config.hidden_act)
        assert (block.norm1.name, block.norm2.name) == (
            f"{block.prefix}.input_layernorm",
            f"{block.prefix}.post_attention_layernorm",
        )


def test_bitnets_own(make_decoder: Callable[..., Path], tmp_path: Path) -> None:
    anatomy, reader = opened(make_decoder(tmp_path, "bitnet"))
    assert anatomy.blocks[0].mlp.activation == "relu2"
    assert [norm.name.rpartition(".")[2] for norm in anatomy.blocks[0].norms()] == [
        "input_layernorm",
        "attn_sub_norm",
        "post_attention_layernorm",
        "ffn_sub_norm",
    ]
    silent = {"rope_theta", "rope_parameters", "rms_norm_eps", "hidden_act"}
    plain = {key: value for key, value in reader.config.items() if key not in silent}
    assert anatomy_of(plain, reader.shapes) == anatomy
    missing = {name: shape for name, shape in reader.shapes.items() if "0.mlp.ffn_sub_norm" not in name}
    with pytest.raises(CheckpointError, match="ffn_sub_norm"):
        anatomy_of(reader.config, missing)


def test_gemma2s_own(make_decoder: Callable[..., Path], tmp_path: Path) -> None:
    anatomy, reader = opened(make_decoder(tmp_path, "gemma2"))
    assert (anatomy.embedding_scale, anatomy.logit_form) == (8.0, LogitForm(softcap=5.0))
    first, second = anatomy.blocks[:2]
    assert (first.attention.sliding_window, second.attention.sliding_window) == (24, None)
    assert (first.attention.scale, first.attention.softcap) == (24**-0.5, 3.0)
    assert [norm.name.rpartition(".")[2] for norm in first.norms()] == [
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ]
    plain = anatomy_of(reader.config | {"attn_logit_softcapping": None}, reader.shapes)
    assert plain.blocks[0].attention.softcap is None
    # Configs from before transformers 5 list no layer types.
    older = {key: value for key, value in reader.config.items() if key != "layer_types"}
    assert anatomy_of(older, reader.shapes) == anatomy


def test_phi_stands_its_parts_side_by_side(make_decoder: Callable[..., Path], tmp_path: Path) -> None:
    anatomy, reader = opened(make_decoder(tmp_path, "phi"))
    assert anatomy.rope is not None and anatomy.rope.dim == 16
    assert {(block.order, block.norm1 == block.norm2) for block in anatomy.blocks} == {("parallel", True)}
    older = {key: value for key, value in reader.config.items() if not key.startswith(("rope", "partial"))}
    assert anatomy_of(older, reader.shapes).rope == anatomy.rope


def test_opts_positions_begin_behind_two_rows(make_decoder: Callable[..., Path], tmp_path: Path) -> None:
    anatomy, reader = opened(make_decoder(tmp_path, "opt"))
    assert (anatomy.position_offset, anatomy.rope) == (2, None)
    assert reader.shapes[f"{anatomy.position_embedding}.weight"][0] == anatomy.max_positions + 2


def test_gpt_neox_packs_head_by_head(make_decoder: Callable[..., Path], tmp_path: Path) -> None:
    anatomy, reader = opened(make_decoder(tmp_path, "gpt_neox"))
    block = anatomy.blocks[0]
    assert [linear.role for linear in block.linears()] == ["qkv", "o", "up", "down"]
    assert (block.order, block.norm1 == block.norm2) == ("parallel", False)
    order = block.attention.row_order()
    assert order is not None and sorted(order) == list(range(192))
    # q of the second head, then k of the first.
    assert (order[32], order[64]) == (96, 32)
    # Pythia's own spelling of the rotary settings.
    older = {key: value for key, value in reader.config.items() if not key.startswith("rope")}
    rope = anatomy_of(older | {"rotary_pct": 0.5, "rotary_emb_base": 5e3}, reader.shapes).rope
    assert rope is not None and (rope.theta, rope.dim) == (5e3, 16)
    one_after_the_other = anatomy_of(reader.config | {"use_parallel_residual": False}, reader.shapes)
    assert one_after_the_other.blocks[0].order == "pre"


def test_gpt2_without_its_head(make_decoder: Callable[..., Path], tmp_path: Path) -> None:
    anatomy, reader = opened(make_decoder(tmp_path, "gpt2", scale_attn_by_inverse_layer_idx=True))
    assert [block.attention.scale for block in anatomy.blocks] == [0.25, 0.125, 0.25 / 3]
    assert anatomy.blocks[0].attention.row_order() is None
    bare = {name.removeprefix("transformer."): shape for name, shape in reader.shapes.items()}
    bare["h.0.attn.bias"] = (1, 1, 512, 512)
    found = anatomy_of(reader.config, bare)
    assert (found.embedding, module_name(found, found.embedding)) == ("wte", "transformer.wte")
    assert module_name(found, "lm_head") == stored_name(found, "lm_head") == "lm_head"
    assert stored_name(found, "transformer.h.0.ln_1") == "h.0.ln_1"


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("gpt2", {"add_cross_attention": True}),
        ("opt", {"do_layer_norm_before": False}),
        ("opt", {"_remove_final_layer_norm": True}),
        ("opt", {"word_embed_proj_dim": 32}),
        ("phi", {"qk_layernorm": True}),
        ("bloom", {"apply_residual_connection_post_layernorm": True}),
        ("mpt", {"no_bias": False}),
        ("mpt", {"logit_scale": 2.0}),
        ("mpt", {"attn_config": {"clip_qkv": 6}}),
        ("mpt", {"attn_config": {"alibi_bias_max": 16}}),
        ("mpt", {"attn_config": 6}),
        ("gemma", {"use_bidirectional_attention": True}),
        ("gemma2", {"use_bidirectional_attention": True}),
        ("gemma2", {"layer_types": ["full_attention"]}),
        ("gemma2", {"final_logit_softcapping": -1.0}),
    ],
)
def test_forms_that_no_graph_has_are_refused(
    model_type: str, changes: Config, make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    _, reader = opened(make_decoder(tmp_path, model_type))
    named = changes.get("attn_config", changes)
    with pytest.raises(CheckpointError, match=next(iter(named if isinstance(named, dict) else changes))):
        anatomy_of(reader.config | changes, reader.shapes)


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 6, 12, 16, 40, 112])
def test_slopes_are_those_of_both_families_in_transformers(heads: int) -> None:
    import torch
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor
    from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

    found = torch.tensor(linear_biases(heads))
    bloom = build_alibi_tensor(torch.ones(1, 2), heads, torch.float32)[:, 0, 1]
    assert torch.allclose(found, bloom, rtol=1e-5)
    assert torch.allclose(found, -build_mpt_alibi_tensor(heads, 2)[:, 0, 0])


def test_bloom_as_the_hub_has_it(make_decoder: Callable[..., Path], tmp_path: Path) -> None:
    anatomy, reader = opened(make_decoder(tmp_path, "bloom"))
    bare = {name.removeprefix("transformer."): shape for name, shape in reader.shapes.items()}
    older = {key: value for key, value in reader.config.items() if key not in ("n_head", "hidden_size")}
    found = anatomy_of(older | {"n_embed": 64, "num_attention_heads": 4}, bare)
    assert module_name(found, "h.0.input_layernorm") == "transformer.h.0.input_layernorm"
    assert module_name(found, "lm_head") == "lm_head"
    assert (
        found.blocks[0].attention.slopes
        == anatomy.blocks[0].attention.slopes
        == (0.25, 1 / 16, 1 / 64, 1 / 256)
    )
    assert found.embedding_norm is not None and found.embedding_norm.bias


@pytest.mark.parametrize("model_type", ENCODERS)
def test_encoder_matches_transformers(
    model_type: str, make_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    from transformers import AutoModel

    anatomy, reader = opened(make_encoder(tmp_path, model_type))
    model = AutoModel.from_pretrained(tmp_path)
    check_against(model, anatomy)
    assert (anatomy.kind, anatomy.base, anatomy.head, anatomy.rope) == ("encoder", "", None, None)
    assert anatomy.embedding_norm is not None and anatomy.position_embedding is not None
    check_norms(model, [anatomy.embedding_norm])
    rows = reader.shapes[f"{anatomy.position_embedding}.weight"][0]
    assert anatomy.position_offset == FIRST_POSITIONS.get(model_type, 0)
    assert anatomy.max_positions == rows - anatomy.position_offset
    assert (anatomy.token_type_embedding is None) == (model_type in ("distilbert", "mpnet"))
    for block in anatomy.blocks:
        assert (block.attention.heads, block.attention.kv_heads, block.attention.head_dim) == (4, 4, 16)
        assert (block.order, block.mlp.gate, block.mlp.activation) == ("post", None, "gelu")


def test_albert_is_one_block_that_is_repeated(make_encoder: Callable[..., Path], tmp_path: Path) -> None:
    from transformers import AutoModel

    anatomy, reader = opened(make_encoder(tmp_path, "albert", embedding_size=32, num_hidden_layers=3))
    model = AutoModel.from_pretrained(tmp_path)
    check_against(model, anatomy)
    (block,) = anatomy.blocks
    assert (block.repeats, block.order, block.mlp.gate) == (3, "post", None)
    assert block.mlp.activation == model.config.hidden_act
    assert anatomy.embedding_projection == "encoder.embedding_hidden_mapping_in"
    assert (anatomy.hidden_size, anatomy.max_positions, anatomy.base) == (64, 130, "")
    for key in ("num_hidden_groups", "inner_group_num"):
        with pytest.raises(CheckpointError, match=f"an ALBERT with {key} 2 is not supported"):
            anatomy_of(reader.config | {key: 2}, reader.shapes)
    with pytest.raises(CheckpointError, match="embedding_size is 16, the weights have 32"):
        anatomy_of(reader.config | {"embedding_size": 16}, reader.shapes)
    other = "encoder.albert_layer_groups.1.albert_layers.0.ffn.weight"
    with pytest.raises(CheckpointError, match="outside the 1 group"):
        anatomy_of(reader.config, reader.shapes | {other: (128, 64)})


@pytest.mark.parametrize("model_type", ROPE_ENCODERS)
def test_encoder_with_a_rope_matches_transformers(
    model_type: str, make_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    from transformers import AutoModel

    changes, orders, windows = ROPE_ENCODERS[model_type]
    anatomy, _ = opened(make_encoder(tmp_path, model_type, **changes))
    model = AutoModel.from_pretrained(tmp_path)
    check_against(model, anatomy)
    assert (anatomy.kind, anatomy.base, anatomy.position_embedding) == ("encoder", "", None)
    outer = [norm for norm in (anatomy.embedding_norm, anatomy.final_norm) if norm is not None]
    check_norms(model, outer)
    assert len(outer) == {"modernbert": 2}.get(model_type, 1)
    assert [block.order for block in anatomy.blocks] == orders
    assert [block.attention.sliding_window for block in anatomy.blocks] == windows
    thetas = [block.attention.rope and block.attention.rope.theta for block in anatomy.blocks]
    whole = {"modernbert": 160_000.0, "nomic_bert": 1e3, "gte": 160_000.0}.get(model_type, 1e4)
    assert thetas == [whole if window is None else 1e4 for window in windows]


def test_deberta_matches_transformers(make_encoder: Callable[..., Path], tmp_path: Path) -> None:
    from transformers import AutoModel

    anatomy, reader = opened(make_encoder(tmp_path, "deberta-v2"))
    model, relative = AutoModel.from_pretrained(tmp_path), anatomy.relative
    check_against(model, anatomy)
    assert relative is not None and relative.norm is not None and anatomy.embedding_norm is not None
    check_norms(model, [anatomy.embedding_norm, relative.norm])
    assert model.get_submodule(relative.table).weight.shape == (2 * relative.span, 64)
    assert (relative.span, relative.farthest, anatomy.max_positions) == (16, 130, 130)
    plain = anatomy_of(reader.config | {"norm_rel_ebd": "none"}, reader.shapes).relative
    assert plain is not None and plain.norm is None


@pytest.mark.parametrize(
    "changes",
    [
        {"relative_attention": False},
        {"share_att_key": False},
        {"position_biased_input": True},
        {"pos_att_type": ["c2p"]},
        {"position_buckets": 0.5},
        {"max_relative_positions": "far"},
        {"pooler_hidden_act": "softmax"},
    ],
)
def test_other_debertas_are_refused(
    changes: Config, make_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    _, reader = opened(make_encoder(tmp_path, "deberta-v2"))
    with pytest.raises(CheckpointError, match=next(iter(changes))):
        anatomy_of(reader.config | changes, reader.shapes)
    with pytest.raises(CheckpointError, match="conv"):
        anatomy_of(reader.config, reader.shapes | {"encoder.conv.conv.weight": (64, 64, 3)})


def test_modernbert_in_the_form_of_before(make_encoder: Callable[..., Path], tmp_path: Path) -> None:
    _, reader = opened(make_encoder(tmp_path, "modernbert", num_hidden_layers=3))
    older = {
        key: value for key, value in reader.config.items() if key not in ("rope_parameters", "layer_types")
    }
    older |= {"global_rope_theta": 5e4, "local_rope_theta": 2e4, "global_attn_every_n_layers": 2}
    anatomy = anatomy_of(older, reader.shapes)
    ropes = [block.attention.rope for block in anatomy.blocks]
    assert [rope and rope.theta for rope in ropes] == [5e4, 2e4, 5e4]
    assert [block.attention.sliding_window for block in anatomy.blocks] == [None, 64, None]


@pytest.mark.parametrize("model_type", ENCODERS)
def test_encoder_under_a_head_keeps_its_prefix(
    model_type: str, make_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    _, reader = opened(make_encoder(tmp_path, model_type))
    prefix = PREFIXES.get(model_type, model_type)
    prefixed: Shapes = {f"{prefix}.{name}": shape for name, shape in reader.shapes.items()}
    anatomy = anatomy_of(reader.config, prefixed | {"classifier.weight": (2, 64)})
    assert anatomy.base == f"{prefix}."
    assert all(linear.name.startswith(f"{prefix}.") for linear in anatomy.linears())


def test_roberta_counts_positions_after_the_padding_row(
    make_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    anatomy, _ = opened(make_encoder(tmp_path, "roberta", pad_token_id=1))
    assert (anatomy.position_offset, anatomy.max_positions) == (2, 128)


def test_untied_head_and_biases_are_found(make_decoder: Callable[..., Path], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    anatomy, _ = opened(
        make_decoder(tmp_path, "llama", tie_word_embeddings=False, attention_bias=True, mlp_bias=True)
    )
    assert not anatomy.tied
    assert all(linear.bias for linear in anatomy.linears())
    check_against(AutoModelForCausalLM.from_pretrained(tmp_path), anatomy)


def test_widths_may_differ_between_layers(pico_llama: Path) -> None:
    _, reader = opened(pico_llama)
    shapes: Shapes = dict(reader.shapes)
    block = "model.layers.1"
    for name in ("gate_proj", "up_proj"):
        shapes[f"{block}.mlp.{name}.weight"] = (96, 64)
    shapes[f"{block}.mlp.down_proj.weight"] = (64, 96)
    shapes[f"{block}.self_attn.q_proj.weight"] = (32, 64)
    shapes[f"{block}.self_attn.o_proj.weight"] = (64, 32)
    anatomy = anatomy_of(reader.config, shapes)
    assert [item.mlp.up.out_features for item in anatomy.blocks] == [128, 96, 128]
    assert [item.attention.heads for item in anatomy.blocks] == [4, 2, 4]


@pytest.mark.parametrize(
    ("changes", "theta", "dim", "scaling"),
    [
        ({}, 10_000.0, 16, {}),
        ({"rope_theta": 5e5}, 5e5, 16, {}),
        ({"rope_theta": 10_000, "rope_scaling": None, "partial_rotary_factor": 0.5}, 10_000.0, 8, {}),
        (
            {"rope_theta": 1e6, "rope_scaling": {"type": "linear", "factor": 2.0}},
            1e6,
            16,
            {"rope_type": "linear", "factor": 2.0},
        ),
        (
            {"rope_theta": 1e4, "rope_parameters": {"rope_theta": 1e6, "rope_type": "yarn", "factor": 4.0}},
            1e6,
            16,
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512},
        ),
    ],
)
def test_rope_in_both_forms(
    changes: Config, theta: float, dim: int, scaling: Config, pico_llama: Path
) -> None:
    _, reader = opened(pico_llama)
    config = {key: value for key, value in reader.config.items() if not key.startswith("rope")}
    rope = anatomy_of(config | changes, reader.shapes).rope
    assert rope is not None
    assert (rope.theta, rope.dim, dict(rope.scaling)) == (theta, dim, scaling)


@pytest.mark.parametrize(
    ("model_type", "changes", "windows"),
    [
        ("mistral", {"sliding_window": 32}, [32, 32, 32]),
        ("mistral", {"sliding_window": None}, [None, None, None]),
        ("qwen2", {"sliding_window": 32}, [None, None, None]),
        ("qwen2", {"sliding_window": 32, "use_sliding_window": True, "max_window_layers": 1}, [None, 32, 32]),
        ("qwen3", {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 2}, [None, None, 8]),
    ],
)
def test_sliding_windows(
    model_type: str,
    changes: Config,
    windows: list[int | None],
    make_decoder: Callable[..., Path],
    tmp_path: Path,
) -> None:
    anatomy, reader = opened(make_decoder(tmp_path, model_type, **changes))
    assert [block.attention.sliding_window for block in anatomy.blocks] == windows
    # Without the list of layer types (configs from before transformers 5) the threshold says the same.
    older = {key: value for key, value in reader.config.items() if key != "layer_types"} | changes
    assert [block.attention.sliding_window for block in anatomy_of(older, reader.shapes).blocks] == windows


@pytest.mark.parametrize("family", ["lama", "gemma3", "deberta", "olmo"])
def test_no_other_family_is_suggested_for_an_unknown_one(family: str) -> None:
    with pytest.raises(UnknownName, match=f"model family '{family}'") as caught:
        anatomy_of({"model_type": family}, {})
    assert "did you mean" not in caught.value.fix and "llama" in caught.value.fix
    with pytest.raises(UnknownName):
        anatomy_of({"model_type": "_llama_like"}, {})
    with pytest.raises(CheckpointError, match="no model_type"):
        anatomy_of({}, {})


def _drop(name: str) -> Callable[[Config, Shapes], object]:
    return lambda config, shapes: shapes.pop(name)


def _shape(name: str, *shape: int) -> Callable[[Config, Shapes], object]:
    return lambda config, shapes: shapes.update({name: shape})


def _set(**changes: object) -> Callable[[Config, Shapes], object]:
    return lambda config, shapes: config.update(changes)


LAYER = "model.layers.1"
FAULTS = [
    (_drop(f"{LAYER}.mlp.up_proj.weight"), f"{LAYER}.mlp.up_proj.weight"),
    (_drop("model.embed_tokens.weight"), "model.embed_tokens.weight"),
    (_shape(f"{LAYER}.self_attn.q_proj.weight", 60, 64), f"{LAYER}.self_attn.q_proj.weight"),
    (_shape(f"{LAYER}.self_attn.k_proj.weight", 48, 64), f"{LAYER}.self_attn.v_proj.weight"),
    (_shape(f"{LAYER}.mlp.gate_proj.weight", 96, 64), f"{LAYER}.mlp.gate_proj.weight"),
    (_shape(f"{LAYER}.mlp.down_proj.weight", 64, 96), f"{LAYER}.mlp.down_proj.weight"),
    (_shape(f"{LAYER}.self_attn.q_proj.bias", 3), f"{LAYER}.self_attn.q_proj.bias"),
    (_shape(f"{LAYER}.self_attn.sinks", 4), f"{LAYER}.self_attn.sinks"),
    (_shape("model.norm.weight", 32), "model.norm.weight"),
    (_shape("model.layers.3.mlp.up_proj.weight", 128, 64), "model.layers.3.mlp.up_proj.weight"),
    (_set(num_hidden_layers=4), "model.layers.3"),
    (_set(num_hidden_layers=2), "model.layers.2"),
    (_set(num_hidden_layers="3"), "num_hidden_layers"),
    (_set(num_attention_heads=0, head_dim=None), "num_attention_heads"),
    (_set(num_attention_heads=10**30, head_dim=None), "num_attention_heads"),
    (_set(tie_word_embeddings=False), "lm_head.weight"),
    (_set(rms_norm_eps=float("nan")), "rms_norm_eps"),
    (_set(hidden_act=3), "hidden_act"),
    (_set(architectures=["LlamaForSequenceClassification"]), "LlamaForSequenceClassification"),
    (_set(rope_parameters={"rope_type": "spiral"}), "spiral"),
    (_set(rope_parameters={"full_attention": {"rope_theta": 1e4}}), "rope_parameters"),
    (_set(rope_parameters=None, partial_rotary_factor=0.2), "rope turns 3 of 16 channels"),
]


@pytest.mark.parametrize(("break_it", "named"), FAULTS)
def test_inconsistent_checkpoints_are_named(
    break_it: Callable[[Config, Shapes], object], named: str, pico_llama: Path
) -> None:
    _, reader = opened(pico_llama)
    config, shapes = json.loads(json.dumps(reader.config)), dict(reader.shapes)
    break_it(config, shapes)
    with pytest.raises(CheckpointError, match=named):
        anatomy_of(config, shapes)


def test_query_heads_must_share_key_heads_evenly(pico_llama: Path) -> None:
    _, reader = opened(pico_llama)
    shapes: Shapes = dict(reader.shapes)
    for name in "kv":
        shapes[f"{LAYER}.self_attn.{name}_proj.weight"] = (48, 64)
    with pytest.raises(CheckpointError, match=f"{LAYER}.self_attn.k_proj.weight"):
        anatomy_of(reader.config, shapes)


@pytest.mark.parametrize("changes", [{"is_decoder": True}, {"position_embedding_type": "relative_key"}])
def test_encoders_of_another_kind_are_refused(changes: Config, pico_bert: Path) -> None:
    _, reader = opened(pico_bert)
    with pytest.raises(CheckpointError, match=next(iter(changes))):
        anatomy_of(reader.config | changes, reader.shapes)


def test_layer_types_must_fit(make_decoder: Callable[..., Path], tmp_path: Path) -> None:
    _, reader = opened(make_decoder(tmp_path, "qwen2"))
    for kinds in (["full_attention"], ["full_attention", "linear_attention", "full_attention"], "full"):
        with pytest.raises(CheckpointError, match="layer"):
            anatomy_of(reader.config | {"layer_types": kinds}, reader.shapes)
