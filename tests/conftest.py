"""Pico models: real architectures and tokenizers with a few thousand random weights, made in milliseconds;
and a made-up folder of energy counters.
"""

from __future__ import annotations

import gc
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from edgepress.benchmarks.lab.same_bytes.pico_families import (
    BART,
    DEBERTA,
    DECODER,
    DISTILBERT,
    ENCODER,
    MODELS,
    SPECIAL,
    T5,
    VISION,
    WHISPER,
)
from hypothesis import settings

from .loopback import Loopback, client, require_sshd, stubs

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# OpenMP's threads wait for each other without turning: beside other tests they would take five times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Examples are judged by their results: a busy machine is no failure.
settings.register_profile("edgepress", deadline=None)
settings.load_profile("edgepress")


@pytest.fixture(autouse=True)
def no_process_in_the_fast_tier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """``make test-fast`` starts no process: a test that needs one is marked ``chain``."""
    if "not chain" in request.config.option.markexpr:

        def refuse(*arguments: Any, **options: Any) -> None:
            pytest.fail("a test of the fast tier starts a process: mark it with @pytest.mark.chain")

        monkeypatch.setattr(subprocess.Popen, "__init__", refuse)


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """No power is cut here: what is written need not be on the disk before a test goes on. What processes of
    their own write is waited for.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


# Of a file whose tests are all of the longer tier.
ALL_CHAIN = re.compile(r"^pytestmark = \[?pytest\.mark\.chain\b", re.M)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A file that holds nothing of the tier that is asked for is not imported: a third of them for each of
    the two, all but a few for CUDA's, which a machine with fewer packages runs too.
    """
    tier = config.option.markexpr
    if collection_path.suffix != ".py" or not ("chain" in tier or tier == "cuda"):
        return None
    text = collection_path.read_text(encoding="utf-8")
    if tier == "cuda":
        return True if "mark.cuda" not in text else None
    lacks = ALL_CHAIN.search(text) if "not chain" in tier else "mark.chain" not in text
    return True if lacks else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is imported and collected stays to the end: the collector of garbage does not look through it,
    neither while it grows, which takes a third of the time, nor afterwards. Through what tests make it looks
    seldom, as pico models are small: exports take an eighth less.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need CUDA say so where there is none; torch is asked only when one of them was collected."""
    waiting = [item for item in items if item.get_closest_marker("cuda")]
    if waiting:
        import torch

        if not torch.cuda.is_available():
            reason = "no CUDA device here (run `make check-gpu` on a machine with one)"
            for item in waiting:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def small_roofs() -> Iterator[None]:
    """Of each size and number of threads bandwidth is measured once in this process, over the weights alone:
    over eight times a large cache it takes longer than all that is measured of a pico model.
    """
    from functools import cache

    from edgepress.benchmarks.speed import profile
    from edgepress.devices.bandwidth import SMALLEST, Bandwidth, measure_bandwidth

    @cache
    def over_the_weights(
        bytes_per_token: int, cache_bytes: int | None, *, threads: int, known: Bandwidth | None = None
    ) -> tuple[Bandwidth, Bandwidth]:
        found = measure_bandwidth(max(bytes_per_token, SMALLEST), threads=threads)
        return found, found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profile, "measure_both", over_the_weights)
        yield


@pytest.fixture
def few_word_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty rated pairs of words of each set: intervals of the rank correlation of 999 take a second each."""
    from edgepress.benchmarks.quality import measured_kinds

    pairs = measured_kinds.pairs
    monkeypatch.setattr(measured_kinds, "pairs", lambda name: pairs(name)[:60])


@pytest.fixture
def tokenizers_made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokenizer of a GGUF file is built in this process: the one that has limits takes seconds to start.

    They, and what comes of them, are the matter of ``test_gguf_source.py``.
    """
    from importlib import import_module

    from edgepress.compress.model.checkpoint.gguf_text import tokenizer

    class Here:
        def __init__(self, handler: Path, **_: Any) -> None:
            self.answer = import_module(f"{tokenizer.__package__}.{handler.stem}").answer

        def __enter__(self) -> Here:
            return self

        def __exit__(self, *_: object) -> None: ...

        def ask(self, asked: dict[str, Any], limits: Any) -> dict[str, Any]:
            return self.answer(asked)  # type: ignore[no-any-return]

    monkeypatch.setattr(tokenizer, "ChildProcess", Here)


@pytest.fixture
def one_short_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """``profile --quick`` is one block of a run, without half a second of warm-up."""
    from edgepress.benchmarks.speed.protocol import Protocol

    short = Protocol(blocks=1, block_ms=1, warmup_seconds=0, energy_seconds=0.01)
    monkeypatch.setattr(Protocol, "quick", classmethod(lambda cls, seed=0: short))


@pytest.fixture(scope="session")
def rates_measured_once() -> Iterator[None]:
    """How fast this machine works is measured once in this process, however many caches tests have."""
    from functools import cache

    from edgepress.compress import rates

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rates, "measure", cache(rates.measure))
        yield


WORDS = """the river ran under old stone bridges while merchants counted copper coins and children watched
boats drift slowly toward the harbour where engineers measured tides winds currents and the weight of every
cargo loaded""".split()


def sentences(count: int, seed: int = 0) -> list[str]:
    """Distinct pseudo-sentences of about 60 words each."""
    import random

    generator = random.Random(seed)
    return [" ".join(generator.choices(WORDS, k=60)) + "." for _ in range(count)]


def save_tokenizer(folder: Path, *, encoder: bool) -> int:
    """A byte-level BPE trained on the sentences (for encoders a WordPiece of letters and words with [CLS] and
    [SEP]); returns its size.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if encoder:
        # Not trained: a trainer of WordPiece breaks ties in another order in every process.
        letters = sorted({letter for word in WORDS for letter in word})
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        pieces = [*special, ".", *letters, *(f"##{letter}" for letter in letters), *sorted(set(WORDS))]
        pieces += [f"[unused{index}]" for index in range(120 - len(pieces))]
        known = {piece: index for index, piece in enumerate(pieces)}
        tokenizer = Tokenizer(models.WordPiece(known, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B [SEP]",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
        names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        trainer = trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(sentences(50), trainer)
        names = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    if not encoder:
        fast.chat_template = (
            "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
        )
    fast.save_pretrained(folder)
    return len(fast)


def _save(model: Any, folder: Path, shard: str | None) -> None:
    import torch

    generator = torch.Generator().manual_seed(0)
    stored_around_zero = model.config.model_type.startswith(("gemma", "nemotron"))  # not around one
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                parameter.copy_(
                    torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5
                )
            elif name.endswith("bias"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
            else:
                noise = 0.2 * torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise if stored_around_zero else 1 + noise)
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.2)
    if getattr(model.config, "tie_word_embeddings", False):
        model.tie_weights()
    model.save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))


# What a decoder's config says beside the sizes of all, as the lab has it. Of these families tests say it.
_SAID_BY_TESTS = ("mistral", "mixtral", "olmoe", "granitemoe", "qwen2_moe", "qwen3_moe")
OWN_SIZES: dict[str, dict[str, Any]] = {
    family: changes
    for family, changes, _ in reversed(MODELS.values())  # of a family that has several the first counts
    if family not in _SAID_BY_TESTS
}
OWN_SIZES["jamba"] = OWN_SIZES["jamba"] | {"num_experts": 1}


def save_decoder(
    folder: Path, model_type: str = "llama", *, shard: str | None = None, **changes: Any
) -> Path:
    """Save a pico decoder of any family with its tokenizer; ``changes`` go to the config."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    size = save_tokenizer(folder, encoder=False)
    settings: dict[str, Any] = DECODER | {"vocab_size": size}
    settings.update(OWN_SIZES.get(model_type, {}))
    settings.update(changes)
    if model_type in ("falcon", "bloom", "mpt"):
        del settings["head_dim"]  # their configs derive it
    _save(AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **settings)), folder, shard)
    return folder


# Encoders that transformers builds without a pooling layer.
POOLERLESS = ("distilbert", "electra", "modernbert", "eurobert", "deberta-v2")


def save_encoder(
    folder: Path,
    model_type: str = "bert",
    *,
    labels: Sequence[str] = (),
    by_token: bool = False,
    answers: bool = False,
    **changes: Any,
) -> Path:
    """Save a pico encoder of any family with its tokenizer; one with ``labels`` is a classifier of texts or
    tokens, one that ``answers`` finds spans.
    """
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForQuestionAnswering,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
    )

    folder.mkdir(parents=True, exist_ok=True)
    size = save_tokenizer(folder, encoder=True)
    own = {"distilbert": DISTILBERT, "deberta-v2": DEBERTA}
    settings = own.get(model_type, ENCODER) | {"vocab_size": size}
    if model_type in ("modernbert", "eurobert"):
        settings |= SPECIAL
    if labels:
        settings["id2label"] = dict(enumerate(labels))
    settings.update(changes)
    config = AutoConfig.for_model(model_type, **settings)
    if labels or answers:
        kind: Any = AutoModelForTokenClassification if by_token else AutoModelForSequenceClassification
        kind = AutoModelForQuestionAnswering if answers else kind
        _save(kind.from_config(config), folder, None)
        return folder
    options = {} if model_type in POOLERLESS else {"add_pooling_layer": False}
    _save(AutoModel.from_config(config, **options), folder, None)
    return folder


def save_ended_tokenizer(folder: Path) -> int:
    """A tokenizer of whole words that puts </s> behind each text, as that of T5 does; returns its size."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<unk>", ".", *sorted(set(WORDS))]
    known = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    fast.save_pretrained(folder)
    return len(fast)


def save_encoder_decoder(
    folder: Path, model_type: str = "t5", *, own_head: bool = False, **changes: Any
) -> Path:
    """Save a pico encoder–decoder with its tokenizer; ``own_head`` is one that is not tied."""
    import torch
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    if model_type == "whisper":
        return save_whisper(folder, **changes)
    folder.mkdir(parents=True, exist_ok=True)
    settings = (BART | {"scale_embedding": True}) if model_type in ("bart", "marian") else T5
    settings = settings | {"vocab_size": save_ended_tokenizer(folder), "tie_word_embeddings": not own_head}
    model: Any = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(model_type, **settings | changes))
    if own_head:
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.get_input_embeddings().weight))
        model.config.tie_word_embeddings = False
    if model_type in ("bart", "marian"):
        model.final_logits_bias.normal_(generator=torch.Generator().manual_seed(0))
    _save(model, folder, None)
    return folder


# The special tokens of a pico Whisper: as in the published ones behind all words, and times would follow.
SPOKEN = (
    *("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|fr|>", "<|translate|>"),
    *("<|transcribe|>", "<|notimestamps|>"),
)


def spoken_settings() -> dict[str, Any]:
    """Generation settings of a pico Whisper, which say as published multilingual ones do what stands in front
    of an answer.
    """
    end = 2 + len(set(WORDS))
    token = {name.strip("<|>"): end + index for index, name in enumerate(SPOKEN)}
    return {
        "decoder_start_token_id": token["startoftranscript"],
        **dict.fromkeys(("eos_token_id", "pad_token_id", "bos_token_id"), end),
        "max_length": 64,
        "is_multilingual": True,
        "lang_to_id": {f"<|{code}|>": token[code] for code in ("en", "de", "fr")},
        "task_to_id": {task: token[task] for task in ("translate", "transcribe")},
        "no_timestamps_token_id": token["notimestamps"],
        "forced_decoder_ids": [[1, None], [2, token["transcribe"]]],
        "suppress_tokens": [4, *range(end + 1, end + len(SPOKEN))],
        "begin_suppress_tokens": [2, end],
    }


def save_spoken_tokenizer(folder: Path) -> int:
    """A tokenizer of whole words with the special tokens of Whisper; returns its size."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = {word: index for index, word in enumerate(["<unk>", ".", *sorted(set(WORDS)), *SPOKEN])}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = dict.fromkeys(("pad_token", "eos_token", "bos_token"), SPOKEN[0]) | {"unk_token": "<unk>"}
    more = {"extra_special_tokens": list(SPOKEN[1:])}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, **more)
    fast.save_pretrained(folder)
    return len(fast)


def save_whisper(folder: Path, *, settings: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Save a pico Whisper that hears two seconds, with its tokenizer and the settings of its extractor;
    ``settings`` change those of generation, where None leaves one out.
    """
    from edgepress.files.storage import write_json
    from transformers import AutoConfig, AutoModelForSpeechSeq2Seq

    folder.mkdir(parents=True, exist_ok=True)
    stated = spoken_settings() | (settings or {})
    given = {key: value for key, value in stated.items() if value is not None}
    ids = ("decoder_start_token_id", "pad_token_id", "bos_token_id", "eos_token_id")
    config = WHISPER | {"vocab_size": save_spoken_tokenizer(folder)}
    config |= {key: spoken_settings()[key] for key in ids}
    config |= changes
    model: Any = AutoModelForSpeechSeq2Seq.from_config(AutoConfig.for_model("whisper", **config))
    _save(model, folder, None)
    write_json(folder / "generation_config.json", given)
    extractor = {"feature_size": config["num_mel_bins"], "chunk_length": config["max_source_positions"] // 50}
    usual = {"sampling_rate": 16000, "n_fft": 400, "hop_length": 160, "padding_value": 0.0}
    named = {"feature_extractor_type": "WhisperFeatureExtractor", "return_attention_mask": False}
    write_json(folder / "preprocessor_config.json", {**extractor, **usual, **named})
    return folder


def save_sounds(folder: Path, count: int = 12, seconds: float = 1.5) -> Path:
    """WAV files of 16-bit PCM at 16 kHz, each with words beside it."""
    from edgepress.compress.text.calibration_audio import made_sounds
    from edgepress.compress.text.log_mel import LogMel

    folder.mkdir(parents=True, exist_ok=True)
    how = LogMel(16_000, int(seconds * 16_000), 400, 160, 16)
    for number, (sound, said) in enumerate(
        zip(made_sounds(how, count, seed=3), sentences(count, seed=6), strict=True)
    ):
        save_wav(folder / f"{number:02d}.wav", sound)
        (folder / f"{number:02d}.txt").write_text(" ".join(said.split()[:12]), encoding="utf-8")
    return folder


def save_wav(path: Path, sound: Any, *, rate: int = 16_000, channels: int = 1) -> Path:
    """A file of the numbers ``sound`` from -1 to 1."""
    import wave

    import numpy as np

    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.clip(np.round(np.asarray(sound) * 32767), -32768, 32767).astype("<i2").tobytes())
    return path


# How the images of a family are prepared: those that are published do it so, to 224 pixels.
PROCESSORS: dict[str, dict[str, Any]] = {
    "vit": {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}, "resample": 2},
    "dinov2": {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 40},
        "crop_size": {"height": 32, "width": 32},
        "do_center_crop": True,
        "resample": 3,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    },
}


def save_vision(
    folder: Path,
    model_type: str = "vit",
    *,
    labels: Sequence[str] = (),
    processor: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Save a pico encoder of images with the settings of its processor, which ``processor`` changes; one with
    ``labels`` is a classifier.
    """
    from edgepress.files.storage import write_json
    from transformers import AutoConfig, AutoModel, AutoModelForImageClassification

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "preprocessor_config.json", PROCESSORS[model_type] | (processor or {}))
    settings: dict[str, Any] = {**VISION}
    settings |= {"mlp_ratio": 2} if model_type == "dinov2" else {"intermediate_size": 128}
    if labels:
        settings["id2label"] = dict(enumerate(labels))
    config = AutoConfig.for_model(model_type, **settings | changes)
    if labels:
        _save(AutoModelForImageClassification.from_config(config), folder, None)
        return folder
    options = {"add_pooling_layer": False} if model_type == "vit" else {}
    _save(AutoModel.from_config(config, **options), folder, None)
    return folder


_CLIP_PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 32},
    "crop_size": {"height": 32, "width": 32},
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_SIGLIP_PROCESSOR = {
    "image_processor_type": "SiglipImageProcessor",
    "size": {"height": 32, "width": 32},
    "resample": 3,
}


def _tower_configs(tokens: int, **text: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    both = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64, "intermediate_size": 128}
    # The tokenizer ends texts with [SEP], which is 3.
    ids = {"vocab_size": tokens, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    of_texts = {**both, **ids, "max_position_embeddings": 40, **text}
    return of_texts, {**both, "image_size": 32, "patch_size": 8}


def save_pair(folder: Path, model_type: str = "clip", **text: Any) -> Path:
    """Save a pico model of two encoders (clip, siglip), of texts and of images, with the tokenizer of one and
    the processor of the other; ``text`` changes the config of the former.
    """
    from edgepress.files.storage import write_json
    from transformers import AutoConfig, AutoModel

    folder.mkdir(parents=True, exist_ok=True)
    processor = _CLIP_PROCESSOR if model_type == "clip" else _SIGLIP_PROCESSOR
    write_json(folder / "preprocessor_config.json", processor)
    of_texts, of_images = _tower_configs(save_tokenizer(folder, encoder=True), **text)
    extra = {"projection_dim": 48} if model_type == "clip" else {}
    config = AutoConfig.for_model(model_type, text_config=of_texts, vision_config=of_images, **extra)
    _save(AutoModel.from_config(config), folder, None)
    return folder


def save_tower(folder: Path, architecture: str) -> Path:
    """Save one of two such encoders by itself, as transformers does: of the class ``architecture``."""
    import transformers
    from edgepress.files.storage import write_json

    folder.mkdir(parents=True, exist_ok=True)
    reads_images = "Vision" in architecture
    if reads_images:
        processor = _CLIP_PROCESSOR if architecture.startswith("CLIP") else _SIGLIP_PROCESSOR
        write_json(folder / "preprocessor_config.json", processor)
    tokens = 0 if reads_images else save_tokenizer(folder, encoder=True)
    kind: Any = getattr(transformers, architecture)
    settings = _tower_configs(tokens)[reads_images]
    extra = {"projection_dim": 48} if architecture.startswith("CLIP") else {}
    _save(kind(kind.config_class(**settings, **extra)), folder, None)
    return folder


def save_images(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """So many PNG files of coloured squares, of sizes from 20 to 90 pixels."""
    import numpy as np

    image = pytest.importorskip("PIL.Image")
    folder.mkdir(parents=True, exist_ok=True)
    generator, paths = np.random.default_rng(seed), []
    for index in range(count):
        height, width = generator.integers(20, 90, 2)
        squares = generator.integers(0, 256, (height // 5 + 1, width // 5 + 1, 3), dtype=np.uint8)
        pixels = np.kron(squares, np.ones((5, 5, 1), np.uint8))[:height, :width]
        paths.append(folder / f"{index:02d}.png")
        image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.fixture(scope="session")
def make_vision() -> Callable[..., Path]:
    """The factory :func:`save_vision`."""
    return save_vision


@pytest.fixture(scope="session")
def make_pair() -> Callable[..., Path]:
    """The factory :func:`save_pair`."""
    return save_pair


@pytest.fixture(scope="session")
def make_tower() -> Callable[..., Path]:
    """The factory :func:`save_tower`."""
    return save_tower


@pytest.fixture(scope="session")
def pico_images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twelve image files in a folder of their own. Read only: shared by the session."""
    return save_images(tmp_path_factory.mktemp("images"), 12)


@pytest.fixture(scope="session")
def pico_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tied GQA Llama checkpoint. Read only: shared by the session."""
    return save_decoder(tmp_path_factory.mktemp("pico") / "llama")


@pytest.fixture(scope="session")
def pico_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT checkpoint. Read only: shared by the session."""
    return save_encoder(tmp_path_factory.mktemp("pico") / "bert")


@pytest.fixture(scope="session")
def make_decoder() -> Callable[..., Path]:
    """The factory :func:`save_decoder`, for tests that need another shape."""
    return save_decoder


@pytest.fixture(scope="session")
def make_encoder() -> Callable[..., Path]:
    """The factory :func:`save_encoder`."""
    return save_encoder


@pytest.fixture(scope="session")
def pico_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tied T5 checkpoint, with three layers and two. Read only: shared by the session."""
    return save_encoder_decoder(tmp_path_factory.mktemp("pico") / "t5")


@pytest.fixture(scope="session")
def make_encoder_decoder() -> Callable[..., Path]:
    """The factory :func:`save_encoder_decoder`."""
    return save_encoder_decoder


@pytest.fixture(scope="session")
def make_whisper() -> Callable[..., Path]:
    """The factory :func:`save_whisper`."""
    return save_whisper


@pytest.fixture(scope="session")
def pico_whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pico Whisper of several languages."""
    return save_whisper(tmp_path_factory.mktemp("whisper") / "model")


@pytest.fixture(scope="session")
def pico_sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a dozen WAV files with what is said in each."""
    return save_sounds(tmp_path_factory.mktemp("sounds") / "wav")


@pytest.fixture(scope="session")
def pico_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text file of distinct paragraphs, enough for a few windows."""
    path = tmp_path_factory.mktemp("text") / "prose.txt"
    path.write_text("\n\n".join(sentences(120, seed=1)), encoding="utf-8")
    return path


@pytest.fixture(scope="session", autouse=True)
def own_answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Originals answer from a cache of the session's own, not from what an earlier one has left."""
    from edgepress.benchmarks.records import answer_cache

    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("answers")
        patch.setattr(answer_cache, "cache_directory", lambda: folder)
        yield


class Powercap:
    """A folder as Linux shows RAPL; whoever reads a counter moves it on by ``step`` microjoules."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.step, self.denied = folder, 0, False

    def zone(self, path: str, name: str, microjoules: int = 0, wraps_at: int | None = 1 << 38) -> Path:
        """Add ``intel-rapl:0`` and the like; the file of its counter."""
        zone = self.folder / path
        zone.mkdir(parents=True)
        (zone / "name").write_text(f"{name}\n")
        (zone / "energy_uj").write_text(f"{microjoules}\n")
        if wraps_at is not None:
            (zone / "max_energy_range_uj").write_text(f"{wraps_at}\n")
        return zone / "energy_uj"

    def read(self, read_text: Callable[..., str], file: Path, **options: Any) -> str:
        """In place of ``Path.read_text``."""
        ours = file.name == "energy_uj" and file.is_relative_to(self.folder)
        if ours and self.denied:
            raise PermissionError(13, "Permission denied", str(file))
        text = read_text(file, **options)
        if ours and self.step:
            top = file.with_name("max_energy_range_uj")
            moved = int(text) + self.step
            file.write_text(str(moved % int(read_text(top)) if top.exists() else moved))
        return text


@pytest.fixture
def powercap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Powercap:
    """An empty folder in the place of /sys/class/powercap, without a lock and a pulse of its own."""
    from edgepress.devices.meters import rapl

    made, read_text = Powercap(tmp_path / "powercap"), Path.read_text
    made.folder.mkdir()
    monkeypatch.setattr(rapl, "POWERCAP", made.folder)
    monkeypatch.setattr(Path, "read_text", lambda file, **options: made.read(read_text, file, **options))
    return made


@pytest.fixture
def loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """A device behind a real sshd on this machine, under the address ``loopback``; the user's configuration
    is an empty folder.
    """
    require_sshd()
    (tmp_path / "device").mkdir()
    device = Loopback(tmp_path / "device")
    device.start()
    monkeypatch.setenv("PATH", f"{client(tmp_path / 'bin', [device])}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EDGEPRESS_WHEELS", str(stubs(tmp_path / "wheels")))
    yield device
    device.stop()
