"""Checkpoints that quantization tools themselves wrote, for tests: a Llama of one block, once a form.

Each tool has an environment of its own, as ``ENVIRONMENTS`` names its packages:

    python -m venv tool && tool/bin/pip install PACKAGES torch transformers==5.24.0 accelerate
    tool/bin/python benchmarks/lab/makers/quantized_checkpoints.py FORM \\
        tests/compress/model/checkpoint/written_by/FORM

Beside the checkpoint, ``dequantized.safetensors`` holds the first rows of each linear as the tool itself
dequantizes it to float32, and ``written.json`` who wrote it and the digests of the whole linears. Everything
is computed on the CPU. This file imports nothing of edgepress.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

Dequantized = dict[str, Any]  # float32 tensors ``[out, in]`` by the names of their linears
Write = Callable[[Path, Path], Dequantized]

ENVIRONMENTS = {
    "bitsandbytes": ["bitsandbytes==0.50.2"],
    "auto-round": ["auto-round==0.16.1"],
    "hqq": ["hqq==0.2.8.post1"],
    "compressed-tensors": ["compressed-tensors==0.20.1"],
}
ROWS = 4


def save_llama(folder: Path) -> None:
    """The float model that is quantized."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(34)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        initializer_range=0.08,
        tie_word_embeddings=True,
        dtype="float32",
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def tokenizer() -> Any:
    """One of 32 words: AutoRound asks for one, though it rounds to nearest without text."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0} | {f"w{index}": index for index in range(1, 32)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, "<pad>")), pad_token="<pad>"
    )


def linears(model: Any) -> Iterator[tuple[str, Any]]:
    """The linears of the blocks by name."""
    return ((name, part) for name, part in model.named_modules() if name.endswith("_proj"))


def loaded(source: Path, **options: Any) -> Any:
    """The model of ``source``, as transformers loads it with a tool's config."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(source, dtype="float32", device_map="cpu", **options)


def four_bits(kind: str, nested: bool) -> Write:
    """bitsandbytes in 4 bits, through transformers."""

    def write(source: Path, target: Path) -> Dequantized:
        import torch
        from bitsandbytes.functional import dequantize_4bit
        from transformers import BitsAndBytesConfig

        settings = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=kind,
            bnb_4bit_use_double_quant=nested,
            bnb_4bit_compute_dtype=torch.float32,
        )
        model = loaded(source, quantization_config=settings)
        model.save_pretrained(target)
        return {
            name: dequantize_4bit(part.weight.data, part.weight.quant_state) for name, part in linears(model)
        }

    return write


def eight_bits(source: Path, target: Path) -> Dequantized:
    """bitsandbytes in 8 bits, through transformers."""
    from bitsandbytes.functional import int8_vectorwise_dequant
    from transformers import BitsAndBytesConfig

    model = loaded(source, quantization_config=BitsAndBytesConfig(load_in_8bit=True))
    model.save_pretrained(target)
    return {name: int8_vectorwise_dequant(part.weight.data, part.weight.SCB) for name, part in linears(model)}


def auto_round(form: str, symmetric: bool = True) -> Write:
    """AutoRound's rounding to nearest, exported in one of its forms."""

    def write(source: Path, target: Path) -> Dequantized:
        from auto_round import AutoRound

        options = {"bits": 4, "group_size": 32, "sym": symmetric, "iters": 0, "disable_opt_rtn": True}
        rounded, _ = AutoRound(loaded(source), tokenizer(), **options, device_map="cpu").quantize()
        found = {name: part.weight.detach() for name, part in linears(rounded)}
        rounder = AutoRound(loaded(source), tokenizer(), **options, device_map="cpu")
        rounder.quantize_and_save(str(target), format=form)
        for folder in list(target.iterdir()):  # one by the model's name
            for made in list(folder.iterdir()):
                made.rename(target / made.name)
            folder.rmdir()
        return found

    return write


def hqq(bits: int) -> Write:
    """HQQ's own quantizer and writer."""

    def write(source: Path, target: Path) -> Dequantized:
        import torch
        from hqq.core.quantize import BaseQuantizeConfig
        from hqq.models.hf.base import AutoHQQHFModel

        model = loaded(source)
        # Its writer takes no tensor that two names share.
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
        config = BaseQuantizeConfig(nbits=bits, group_size=64, axis=1)
        AutoHQQHFModel.quantize_model(model, quant_config=config, compute_dtype=torch.float32, device="cpu")
        AutoHQQHFModel.save_to_safetensors(model, str(target))
        return {name: part.dequantize() for name, part in linears(model)}

    return write


def compressed_tensors(form: str, **arguments: Any) -> Write:
    """The package compressed-tensors, with scales from the largest weight of a group or row."""

    def write(source: Path, target: Path) -> Dequantized:
        from compressed_tensors.compressors import ModelCompressor
        from compressed_tensors.quantization import (
            QuantizationArgs,
            QuantizationConfig,
            QuantizationScheme,
            apply_quantization_config,
        )
        from compressed_tensors.quantization.lifecycle.forward import fake_quantize
        from compressed_tensors.quantization.utils import calculate_qparams

        found: Dequantized = {}
        model, weights = loaded(source), QuantizationArgs(symmetric=True, **arguments)
        scheme = QuantizationScheme(targets=["Linear"], weights=weights)
        config = QuantizationConfig(config_groups={"group_0": scheme}, format=form, ignore=["lm_head"])
        apply_quantization_config(model, config)
        for name, part in linears(model):
            groups = part.weight.data.unflatten(1, (-1, weights.group_size or part.in_features))
            scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), weights)
            part.weight_scale.data = scale.to(part.weight_scale.dtype)
            found[name] = fake_quantize(part.weight.data, part.weight_scale.data, zero, weights)
        compressor = ModelCompressor.from_pretrained_model(model)
        compressor.compress_model(model)
        model.save_pretrained(target)
        compressor.update_config(target)
        return found

    return write


FORMS: dict[str, tuple[str, Write]] = {
    "bitsandbytes_nf4": ("bitsandbytes", four_bits("nf4", nested=True)),
    "bitsandbytes_int8": ("bitsandbytes", eight_bits),
    "auto_round": ("auto-round", auto_round("auto_round")),
    "auto_round_gptq": ("auto-round", auto_round("auto_gptq")),
    "auto_round_awq": ("auto-round", auto_round("auto_awq", symmetric=False)),
    "hqq_4": ("hqq", hqq(4)),
    "compressed_tensors_pack": (
        "compressed-tensors",
        compressed_tensors("pack-quantized", num_bits=4, strategy="group", group_size=32),
    ),
    "compressed_tensors_fp8": (
        "compressed-tensors",
        compressed_tensors("float-quantized", num_bits=8, type="float", strategy="channel"),
    ),
}


def make(form: str, target: Path) -> None:
    """Write ``target`` in one form, with what the tool reads in it."""
    import torch
    from safetensors.torch import save_file

    tool, write = FORMS[form]
    with tempfile.TemporaryDirectory() as scratch:
        save_llama(Path(scratch))
        read = write(Path(scratch), target)
    # Without negative zeros, which codes do not tell from others.
    read = {name: 0.0 + value.to(torch.float32).contiguous() for name, value in read.items()}
    save_file(
        {name: value[:ROWS].clone() for name, value in read.items()}, target / "dequantized.safetensors"
    )
    files = sorted(file for file in target.iterdir() if file.is_file())
    written = {
        "by": {name: version(name) for name in (tool, "transformers", "torch")},
        "command": f"python benchmarks/lab/makers/quantized_checkpoints.py {form} DIRECTORY",
        "date": datetime.now(UTC).date().isoformat(),
        "files": {file.name: sha256(file.read_bytes()).hexdigest() for file in files},
        "float32_sha256": {name: sha256(value.numpy().tobytes()).hexdigest() for name, value in read.items()},
    }
    (target / "written.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("form", choices=FORMS)
    parser.add_argument("directory", type=Path)
    wanted = parser.parse_args()
    wanted.directory.mkdir(parents=True)
    make(wanted.form, wanted.directory)


if __name__ == "__main__":
    main()
