"""Readers that are fuzzed, of GGUF files: their headers, and the models that are made of them."""

import json
import struct
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from shutil import copy
from typing import Any
from unittest.mock import patch

import numpy as np

from ...interop.families import TOKENIZERS
from ...same_bytes import pico_families as pico
from ...same_bytes.pico_models import save_pico
from .models import Reader

# As llama.cpp has them: windows, and a scale that is of the width of a head.
_OF_SIX = {"query_pre_attn_scalar": 32, "sliding_window_pattern": 6, "num_hidden_layers": 6}
# Of very different settings: rotary positions alone, windows and two ropes, an encoder, two stacks, experts.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"num_hidden_layers": 1},
    "gemma3_text": pico.GEMMA3 | _OF_SIX,
    "bert": pico.ENCODER | {"num_hidden_layers": 1},
    "t5": pico.T5,
    "qwen3_moe": pico.QWEN3_MOE | {"norm_topk_prob": True, "num_hidden_layers": 1},
}


def gguf(folder: Path) -> Reader:
    """The header of a GGUF file."""
    from gguf import GGUFWriter

    from .....compress.model.checkpoint.gguf_header import read_gguf_header

    path = folder / "model.gguf"
    folder.mkdir(parents=True)
    writer = GGUFWriter(path, "llama")
    for add, value in (
        *(
            (writer.add_block_count, 1),
            (writer.add_embedding_length, 32),
            (writer.add_feed_forward_length, 64),
        ),
        *((writer.add_head_count, 2), (writer.add_head_count_kv, 2), (writer.add_vocab_size, 32)),
    ):
        add(value)
    writer.add_token_list(["a", "b", "c"])
    writer.add_array("llama.rope.factors", [1.0, 2.0])
    writer.add_tensor("token_embd.weight", np.ones((32, 32), np.float32))
    writer.add_tensor("blk.0.ffn_up.weight", np.ones((64, 32), np.float16))
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    return Reader({path: "bytes"}, read_gguf_header, (b"GGUF", b"llama.", b"general.alignment"))


def gguf_settings(folder: Path) -> Reader:
    """Whole GGUF files, up to the models that are made of them: their settings as JSON, of which a file is
    written again, and the bytes before the first tensor. Not the tokenizer, which a child builds.
    """
    from gguf import GGUFReader

    from .....compress.model.checkpoint import gguf_source
    from .....export.api import export_bundle

    opened: dict[Path, Any] = {}
    for family, changes in FAMILIES.items():
        save_pico(folder / "models" / family, family, changes, tokenizer=TOKENIZERS.get(family))
        made = export_bundle(folder / "models" / family, format="gguf", output=folder / family)
        (whole,) = made.glob("*.gguf")
        opened[folder / family] = file = GGUFReader(whole)
        settings = {name: one.contents() for name, one in file.fields.items() if not name.startswith("GGUF.")}
        (folder / family / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        (folder / family / "head").write_bytes(bytes(file.data[: file.tensors[0].data_offset]))

    def read(path: Path) -> object:
        known = opened[path.parent]
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "model.gguf"
            if path.name == "head":
                file.write_bytes(path.read_bytes() + bytes(known.data[known.tensors[0].data_offset :]))
            else:
                _write_gguf(file, path.read_bytes(), known.tensors)
            own = folder / "models" / path.parent.name / "tokenizer.json"
            with patch.object(gguf_source, "save_tokenizer", lambda _, __, made, ___: copy(own, made)):
                return gguf_source.materialise(file, Path(scratch) / "made")

    files = {
        place / name: form
        for place in opened
        for name, form in (("head", "bytes"), ("settings.json", "json"))
    }
    words = [f"{known.get_field('general.architecture').contents()}.".encode() for known in opened.values()]
    return Reader(files, read, (b"GGUF", *words), 20.0)


def _write_gguf(file: Path, settings: bytes, tensors: Sequence[Any]) -> None:
    """A file with the ``settings``; those that GGUF has no type for are refused, as if it were read."""
    from gguf import GGUFWriter

    from .....errors import CheckpointError

    try:
        fields = json.loads(settings)
        with closing(GGUFWriter(file, fields.pop("general.architecture"))) as writer:
            add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
            add |= {str: writer.add_string, list: writer.add_array}
            for name, value in fields.items():
                add[type(value)](name, value)
            for tensor in tensors:
                writer.add_tensor(tensor.name, tensor.data)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError, struct.error) as error:
        raise CheckpointError("no GGUF file has such settings", why=str(error), fix="take others") from error
