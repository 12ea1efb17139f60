"""Families that differ from Llama in data alone, a row each by ``model_type``; all others have a file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..anatomy import Anatomy, Shapes
from ._config import FULL, SLIDING, SizeKeys, layer_windows, windows_of_types
from ._experts import ExpertNames
from ._llama_like import BEHIND, LlamaLike, NormNames, llama_like
from ._tensors import Config, integer

Windows = Callable[[Config], Sequence[int | None]]
_MISTRAL_WINDOW = 4096
_PLAIN = SizeKeys()
_EXPERTS = SizeKeys(experts=("num_experts", "num_local_experts"))


@dataclass(frozen=True)
class LlamaRow:
    """One family; it has the names of what a family file may say.

    Attributes:
        silent: what a setting is where the config leaves it out.
        windows: from a config to the sliding window of each layer, None where it sees the whole text.
    """

    form: LlamaLike
    silent: Mapping[str, Any] = field(default_factory=dict)
    windows: Windows = lambda config: ()
    SIZES: SizeKeys = _PLAIN

    @property
    def EXPERTS(self) -> ExpertNames | None:
        """How the family stores router and experts."""
        return self.form.experts

    def anatomy(self, config: Config, shapes: Shapes) -> Anatomy:
        """See :func:`edgepress.compress.model.family.anatomy_of`."""
        return llama_like({**self.silent, **config}, shapes, self.form, windows=self.windows(config))


def _window(config: Config) -> int | None:
    """Mistral's: one in every layer unless the config says null."""
    null = "sliding_window" in config and config["sliding_window"] is None
    return None if null else integer(config, "sliding_window", _MISTRAL_WINDOW)


def _one_window(config: Config) -> list[int | None]:
    return [_window(config)] * integer(config, "num_hidden_layers")


def _listed_windows(config: Config) -> Sequence[int | None]:
    """As the config lists the kinds of layers."""
    window, count = _window(config), integer(config, "num_hidden_layers")
    same = [FULL if window is None else SLIDING] * count
    kinds = config.get("layer_types")
    return windows_of_types(same if kinds is None else kinds, count, window)


ROWS = {
    # BitNet b1.58: norms inside attention and MLP, before o and before down. Ma et al., BitNet b1.58 2B4T
    # Technical Report, 2025, arXiv 2504.12285.
    "bitnet": LlamaRow(
        LlamaLike(max_positions=2048, inner_norms=True, activation="relu2", eps=1e-5),
        {"rope_theta": 500_000.0},
    ),
    # ERNIE 4.5 without experts: neighbouring channels turn together. Baidu ERNIE Team, ERNIE 4.5 Technical
    # Report, 2025.
    "ernie4_5": LlamaRow(
        LlamaLike(max_positions=131_072, eps=1e-5, neighbours_turn=True),
        {"rope_theta": 500_000.0, "head_dim": 128},
    ),
    # GLM-4: norms around attention and MLP, gate and up in one matrix, a rope over neighbouring channels of
    # half of each head. GLM Team, ChatGLM: A Family of Large Language Models from GLM-130B to GLM-4 All
    # Tools, 2024, arXiv 2406.12793.
    "glm4": LlamaRow(
        LlamaLike(
            max_positions=131_072,
            eps=1.5625e-7,
            norms=NormNames(attention_norm="post_self_attn_layernorm", mlp_norm="post_mlp_layernorm"),
            fused_mlp=True,
            neighbours_turn=True,
        ),
        {"partial_rotary_factor": 0.5},
    ),
    # Helium: neighbouring channels turn together. Kyutai, Helium 1: a modular and multilingual LLM, 2025.
    "helium": LlamaRow(
        LlamaLike(max_positions=4096, eps=1e-8, neighbours_turn=True),
        {"rope_theta": 100_000.0, "head_dim": 128},
    ),
    # SmolLM2, TinyLlama, Vicuna and more publish under it. Touvron et al., LLaMA: Open and Efficient
    # Foundation Language Models, 2023, arXiv 2302.13971. Mistral without a window is Llama without biases.
    "llama": LlamaRow(LlamaLike(max_positions=2048), SIZES=SizeKeys(twin=("mistral", "MistralForCausalLM"))),
    # Layers see a sliding window or the whole text, as listed. Mistral AI, Un Ministral, des Ministraux,
    # 2024.
    "ministral": LlamaRow(LlamaLike(max_positions=131_072), windows=_listed_windows),
    # Jiang et al., Mistral 7B, 2023, arXiv 2310.06825.
    "mistral": LlamaRow(LlamaLike(max_positions=131_072), windows=_one_window),
    # Nemotron and Minitron: LayerNorms whose scales are stored around zero, a rope over half of each head,
    # and an MLP without gate. Parmar et al., Nemotron-4 15B Technical Report, 2024, arXiv 2402.16819.
    "nemotron": LlamaRow(
        LlamaLike(
            max_positions=4096,
            norm_kind="layer",
            norm_offset=1.0,
            eps_key="norm_eps",
            eps=1e-5,
            gated=False,
            activation="relu2",
        ),
        {"partial_rotary_factor": 0.5},
    ),
    # OLMo 2: norms behind attention and MLP and none before, q and k normalized over all heads at once.
    # OLMo Team, 2 OLMo 2 Furious, 2025, arXiv 2501.00656.
    "olmo2": LlamaRow(
        LlamaLike(max_positions=2048, eps=1e-5, norms=BEHIND, order="behind", qk_norm="whole"),
    ),
    # Qwen2 and Qwen2.5: biases on q, k and v; the upper layers may see a sliding window. Yang et al., Qwen2
    # Technical Report, 2024, arXiv 2407.10671; the mixtures, Qwen1.5's too, have an MLP that every token
    # goes through.
    "qwen2": LlamaRow(LlamaLike(max_positions=32_768), windows=layer_windows),
    "qwen2_moe": LlamaRow(
        LlamaLike(
            max_positions=32_768,
            experts=ExpertNames(normalized=False, shared="shared_expert", shared_gate="shared_expert_gate"),
        ),
        windows=layer_windows,
        SIZES=_EXPERTS,
    ),
    # Qwen3: Qwen2 with an RMSNorm on each head of q and k. Yang et al., Qwen3 Technical Report, 2025, arXiv
    # 2505.09388.
    "qwen3": LlamaRow(LlamaLike(max_positions=32_768, qk_norm="head"), windows=layer_windows),
    "qwen3_moe": LlamaRow(
        LlamaLike(max_positions=32_768, qk_norm="head", experts=ExpertNames(normalized=False)),
        windows=layer_windows,
        SIZES=_EXPERTS,
    ),
}
