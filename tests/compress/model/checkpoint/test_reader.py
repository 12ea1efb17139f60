"""Reading checkpoints: one file or shards, exact bytes, bounded memory, and faults that are named."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.model.checkpoint.reader import CheckpointReader
from edgepress.compress.model.checkpoint.shards import INDEX, SINGLE, ShardFiles
from edgepress.compress.model.checkpoint.tensor_check import refuse_non_finite
from edgepress.errors import CheckpointError, EdgepressError, InputError, RefusedByPolicy
from safetensors.torch import load_file, save_file

NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def sharded(make_decoder: Callable[..., Path], tmp_path: Path) -> Path:
    return make_decoder(tmp_path / "sharded", shard="200KB")


def copied(source: Path, target: Path) -> Path:
    return shutil.copytree(source, target)


def edit_json(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_reads_the_bytes_that_the_library_reads(pico_llama: Path) -> None:
    reader = CheckpointReader.open(pico_llama)
    expected = load_file(pico_llama / SINGLE)
    tensors = reader.read(expected)
    assert reader.shapes == {name: tuple(tensor.shape) for name, tensor in expected.items()}
    for name, tensor in expected.items():
        assert tensors[name].dtype == tensor.dtype and torch.equal(tensors[name], tensor)
        assert reader.nbytes(name) == tensor.nbytes


def test_tensors_are_owned(pico_llama: Path, tmp_path: Path) -> None:
    folder = copied(pico_llama, tmp_path / "model")
    reader = CheckpointReader.open(folder)
    tensor = reader.read([NAME])[NAME]
    before = tensor.clone()
    with (folder / SINGLE).open("r+b") as stream:
        stream.seek(-100_000, 2)
        stream.write(bytes(100_000))
    assert torch.equal(tensor, before)
    tensor.zero_()
    assert not torch.equal(reader.read(["model.embed_tokens.weight"])["model.embed_tokens.weight"], tensor)


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.int8, torch.bool]
)
def test_stored_types_are_kept(dtype: torch.dtype, pico_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    tensors = {
        "odd": torch.tensor([True]),
        "x": torch.arange(6.0).view(2, 3).to(dtype),
        "s": torch.tensor(1.5),
    }
    save_file(tensors, tmp_path / SINGLE)
    read = CheckpointReader.open(tmp_path).read(tensors)
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype and read[name].shape == tensor.shape
        assert torch.equal(read[name].float(), tensor.float())


def test_shards_hold_the_same_model(pico_llama: Path, sharded: Path) -> None:
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    one, many = CheckpointReader.open(pico_llama), CheckpointReader.open(sharded)
    assert one.shapes == many.shapes and one.dtypes == many.dtypes
    tensors = many.read(many.shapes)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in one.read(one.shapes).items())


def test_unknown_tensor_and_shrunken_file_are_named(pico_llama: Path, tmp_path: Path) -> None:
    folder = copied(pico_llama, tmp_path / "model")
    reader = CheckpointReader.open(folder)
    with pytest.raises(CheckpointError, match="no tensor 'absent'"):
        reader.read(["absent"])
    last = max(ShardFiles().header(folder / SINGLE).items(), key=lambda item: item[1].end)[0]
    with (folder / SINGLE).open("r+b") as stream:
        stream.truncate(10_000)
    with pytest.raises(CheckpointError, match=f"{SINGLE} shrank.*{last}"):
        reader.read([last])
    reader.close()
    (folder / SINGLE).unlink()
    with pytest.raises(CheckpointError, match=f"cannot read tensor '{NAME}'"):
        reader.read([NAME])


def test_a_file_that_is_replaced_is_read_as_it_was_or_refused(pico_llama: Path, tmp_path: Path) -> None:
    folder = copied(pico_llama, tmp_path / "model")
    reader = CheckpointReader.open(folder)
    before = reader.read([NAME])[NAME]
    tensors = {name: torch.zeros_like(tensor) for name, tensor in load_file(folder / SINGLE).items()}
    save_file(tensors, tmp_path / SINGLE)
    (tmp_path / SINGLE).replace(folder / SINGLE)
    assert torch.equal(reader.read([NAME])[NAME], before)
    reader.close()
    with pytest.raises(CheckpointError, match="was changed while it was read"):
        reader.read([NAME])


def test_old_layer_norm_names_are_modern(pico_bert: Path, tmp_path: Path) -> None:
    folder = copied(pico_bert, tmp_path / "old")
    tensors = load_file(pico_bert / SINGLE)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in tensors.items()
    }
    save_file(old, folder / SINGLE)
    reader = CheckpointReader.open(folder)
    assert reader.shapes.keys() == tensors.keys()
    name = "embeddings.LayerNorm.bias"
    assert torch.equal(reader.read([name])[name], tensors[name])
    save_file(old | {name: tensors[name].clone()}, folder / SINGLE)
    with pytest.raises(CheckpointError, match=f"'{name}' under its old name and its new one"):
        CheckpointReader.open(folder)


def _remove_shard(folder: Path) -> str:
    shard = sorted(folder.glob("model-*.safetensors"))[0]
    shard.unlink()
    return f"shard {shard.name} is missing"


def _index_names_absent_tensor(folder: Path) -> str:
    edit_json(
        folder / INDEX, lambda index: index["weight_map"].update(ghost=min(index["weight_map"].values()))
    )
    return "tensor 'ghost' is not in shard"


def _index_omits_a_tensor(folder: Path) -> str:
    edit_json(folder / INDEX, lambda index: index["weight_map"].pop(NAME))
    return f"unexpected tensor '{NAME}': the index omits it"


def _tensor_twice(folder: Path) -> str:
    index = json.loads((folder / INDEX).read_text())["weight_map"]
    other = next(shard for shard in index.values() if shard != index[NAME])
    tensors = load_file(folder / other)
    save_file(tensors | {NAME: torch.zeros(2)}, folder / other)
    return f"unexpected tensor '{NAME}': the index puts it into {index[NAME]}"


def _shard_in_another_place(folder: Path) -> str:
    edit_json(folder / INDEX, lambda index: index["weight_map"].update({NAME: "../model.safetensors"}))
    return "points outside"


def _absolute_shard(folder: Path) -> str:
    edit_json(folder / INDEX, lambda index: index["weight_map"].update({NAME: "/tmp/model.safetensors"}))
    return "points outside"


def _shard_is_a_link_outwards(folder: Path) -> str:
    shard = sorted(folder.glob("model-*.safetensors"))[0]
    shard.rename(folder.parent / "secret")
    shard.symlink_to(folder.parent / "secret")
    return "link that leaves"


def _pickle_shard(folder: Path) -> str:
    edit_json(folder / INDEX, lambda index: index["weight_map"].update({NAME: "pytorch_model.bin"}))
    return "not a .safetensors file"


def _shard_of_wrong_type(folder: Path) -> str:
    edit_json(folder / INDEX, lambda index: index["weight_map"].update({NAME: 3}))
    return "not a .safetensors file"


def _index_without_map(folder: Path) -> str:
    (folder / INDEX).write_text("[]")
    return "no weight_map"


def _index_not_json(folder: Path) -> str:
    (folder / INDEX).write_text("{")
    return "not valid JSON"


def _shard_cut_short(folder: Path) -> str:
    shard = sorted(folder.glob("model-*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-1])
    return f"{shard.name} is not a valid safetensors file"


SHARD_FAULTS = (
    _remove_shard,
    _index_names_absent_tensor,
    _index_omits_a_tensor,
    _tensor_twice,
    _shard_in_another_place,
    _absolute_shard,
    _shard_is_a_link_outwards,
    _pickle_shard,
    _shard_of_wrong_type,
    _index_without_map,
    _index_not_json,
    _shard_cut_short,
)


@pytest.mark.parametrize("fault", SHARD_FAULTS)
def test_shards_and_index_that_disagree(fault: Callable[[Path], str], sharded: Path) -> None:
    message = fault(sharded)
    with pytest.raises((InputError, RefusedByPolicy), match=message):
        CheckpointReader.open(sharded)


def test_a_hub_cache_snapshot_may_link_to_its_blobs(sharded: Path, tmp_path: Path) -> None:
    blobs, snapshot = (
        tmp_path / "models--a--b" / "blobs",
        tmp_path / "models--a--b" / "snapshots" / "revision",
    )
    snapshot.mkdir(parents=True)
    shutil.move(sharded, blobs)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(Path("..", "..", "blobs", path.name))
    reader = CheckpointReader.open(snapshot)
    assert "tokenizer.json" in reader.companions()
    assert reader.read([NAME])[NAME].shape == (128, 64)
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to("/etc/hostname")
    with pytest.raises(RefusedByPolicy, match="leaves its directory"):
        CheckpointReader.open(snapshot)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"])
def test_pickles_are_refused_with_the_way_out(name: str, pico_llama: Path, tmp_path: Path) -> None:
    folder = copied(pico_llama, tmp_path / "pickled")
    (folder / SINGLE).rename(folder / name)
    for path in (folder, folder / name):
        with pytest.raises(RefusedByPolicy, match="pickle") as caught:
            CheckpointReader.open(path)
        assert "save_pretrained" in caught.value.fix and caught.value.exit_code == 5


def test_a_pickle_of_hqq_is_refused_with_the_way_out_in_hqq(pico_llama: Path, tmp_path: Path) -> None:
    folder = copied(pico_llama, tmp_path / "pickled")
    (folder / SINGLE).rename(folder / "qmodel.pt")  # as its save_quantized names it
    with pytest.raises(RefusedByPolicy, match="is a pickle") as caught:
        CheckpointReader.open(folder)
    assert "AutoHQQHFModel.save_to_safetensors" in caught.value.fix
    assert "save_pretrained" not in caught.value.fix


def test_missing_parts_are_named(pico_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a model directory"):
        CheckpointReader.open(tmp_path / "absent")
    folder = copied(pico_llama, tmp_path / "model")
    (folder / SINGLE).unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        CheckpointReader.open(folder)
    copied(pico_llama, folder / "0_Transformer")
    with pytest.raises(CheckpointError, match="no weights") as inner:
        CheckpointReader.open(folder)
    assert inner.value.fix == f"give one of its folders: {folder / '0_Transformer'}"
    (folder / "model.onnx").touch()
    with pytest.raises(CheckpointError, match="is a bundle") as bundle:
        CheckpointReader.open(folder)
    assert "the checkpoint that it was exported from" in bundle.value.fix
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no config.json"):
        CheckpointReader.open(folder)


CODE = [
    {"auto_map": {"AutoModel": "modeling.Evil"}},
    {"text_config": {"auto_map": {"AutoModel": "modeling.Evil"}}},
    {"nested": [{"trust_remote_code": True}]},
    {"_attn_implementation_internal": "org/kernel"},
    {"attn_implementation": "org/kernel"},
    {"use_kernels": True},
    {"TRUST_REMOTE_CODE": 1},
]


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("setting", CODE)
def test_settings_that_ask_for_code_are_refused(
    setting: dict[str, Any], file: str, pico_llama: Path, tmp_path: Path
) -> None:
    folder = copied(pico_llama, tmp_path / "model")
    edit_json(folder / file, lambda content: content.update(setting))
    with pytest.raises(RefusedByPolicy, match=file):
        CheckpointReader.open(folder)


def test_harmless_settings_pass(pico_llama: Path, tmp_path: Path) -> None:
    folder = copied(pico_llama, tmp_path / "model")
    harmless = {"trust_remote_code": False, "auto_map": None, "_attn_implementation": "sdpa"}
    edit_json(folder / "config.json", lambda content: content.update(harmless))
    assert CheckpointReader.open(folder).config["auto_map"] is None
    (folder / "config.json").write_text('{"a":' * 100 + "1" + "}" * 100)
    with pytest.raises(CheckpointError, match="nested"):
        CheckpointReader.open(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(EdgepressError, match="not a JSON object"):
        CheckpointReader.open(folder)


def test_companions_are_the_model_s_own_files_and_no_weights(pico_bert: Path, tmp_path: Path) -> None:
    folder = copied(pico_bert, tmp_path / "model")
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text("{}")
    for name in ("modeling_evil.py", "README.md", "model.onnx", "optimizer.pt", "vocab.txt", "LICENSE"):
        (folder / name).write_text("x")
    found = CheckpointReader.open(folder).companions()
    assert {
        "tokenizer.json",
        "tokenizer_config.json",
        "1_Pooling/config.json",
        "vocab.txt",
        "LICENSE",
    } <= set(found)
    assert not {"config.json", SINGLE, "modeling_evil.py", "README.md", "model.onnx", "optimizer.pt"} & set(
        found
    )
    (folder / "merges.txt").symlink_to("/etc/hostname")
    with pytest.raises(RefusedByPolicy, match="leaves its directory"):
        CheckpointReader.open(folder).fingerprint()


def test_fingerprint_follows_the_content(pico_llama: Path, tmp_path: Path) -> None:
    first = CheckpointReader.open(pico_llama).fingerprint()
    folder = copied(pico_llama, tmp_path / "renamed")
    assert CheckpointReader.open(folder).fingerprint() == first
    (folder / "README.md").write_text("not part of the model")
    assert CheckpointReader.open(folder).fingerprint() == first
    seen = {first}
    for name in (SINGLE, "config.json", "tokenizer.json"):
        data = bytearray((folder / name).read_bytes())
        data[-1:] = b"\n" if name.endswith(".json") else bytes([data[-1] ^ 1])
        (folder / name).write_bytes(bytes(data) + (b" " if name.endswith(".json") else b""))
        seen.add(CheckpointReader.open(folder).fingerprint())
    assert len(seen) == 4


_MEASURE = """
import sys, psutil
from pathlib import Path
from edgepress.compress.model.checkpoint.reader import CheckpointReader
reader = CheckpointReader.open(Path(sys.argv[1]))
reader.read(["0"])
process = psutil.Process()
before = peak = process.memory_info().rss
for name in reader.shapes:
    tensor = reader.read([name])[name]
    peak = max(peak, process.memory_info().rss)
    assert float(tensor[0, 0]) == float(name)
print(peak - before)
"""


@pytest.mark.chain
def test_memory_holds_the_tensors_asked_for_and_not_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    megabyte = 1 << 20
    save_file({str(index): torch.full((1024, 1024), float(index)) for index in range(16)}, tmp_path / SINGLE)
    result = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(result.stdout) < 24 * megabyte  # the file has 64 MB, a tensor 4 MB


def test_non_finite_weights_are_named_with_counts() -> None:
    tensors = {f"ok.{index}": torch.ones(4) for index in range(3)}
    tensors["counts"] = torch.tensor([1, 2])
    refuse_non_finite(tensors)
    tensors["half"] = torch.tensor([1.0, float("nan"), float("inf"), float("-inf")], dtype=torch.float16)
    tensors["tiny"] = torch.tensor([1.0, float("nan")]).to(torch.float8_e4m3fn)
    with pytest.raises(CheckpointError) as caught:
        refuse_non_finite(tensors)
    assert "half has 1 NaN and 2 Inf of 4 values" in caught.value.what
    assert "tiny has 1 NaN and 0 Inf of 2 values" in caught.value.what
    with pytest.raises(CheckpointError, match="and 3 more tensors"):
        refuse_non_finite({str(index): torch.tensor([float("nan")]) for index in range(8)})


def test_a_model_in_a_folder_within_is_named(pico_llama: Path, tmp_path: Path) -> None:
    shutil.copytree(pico_llama, tmp_path / "m" / "model")
    with pytest.raises(CheckpointError, match="has no config") as refused:
        CheckpointReader.open(tmp_path / "m")
    assert refused.value.fix.endswith(str(tmp_path / "m" / "model"))
    assert CheckpointReader.open(tmp_path / "m" / "model").shapes


def test_shards_may_lie_in_a_folder(pico_llama: Path, tmp_path: Path) -> None:
    model = tmp_path / "m"
    shutil.copytree(pico_llama, model)
    (model / "weights").mkdir()
    names = CheckpointReader.open(model).shapes
    (model / "model.safetensors").rename(model / "weights" / "one.safetensors")
    index = {"weight_map": dict.fromkeys(names, "weights/one.safetensors")}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert CheckpointReader.open(model).shapes == names
