"""A bundle opens only if every byte is the one that was published."""

import json
import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import onnx
import pytest
from edgepress.errors import BundleError, EdgepressError, InputError, RefusedByPolicy
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import sha256_file, write_json
from edgepress.runtime.api import TextModel, open_bundle
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.bundle.verification import verify_directory
from edgepress.runtime.engine.load import load_graph
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runtime_toys.bundle import edit_manifest


def _flip_bit(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(data)


def test_open_gives_the_manifest_and_its_hash(decoder_bundle: Path) -> None:
    bundle = Bundle.open(decoder_bundle)
    assert (bundle.kind, bundle.name, bundle.scheme) == ("decoder", "toy", "fp32")
    assert bundle.manifest["decoder"]["vocab_size"] == bundle.decoder.vocab_size
    assert bundle.manifest_sha256 == sha256_file(decoder_bundle / "manifest.json")
    assert bundle.disk_bytes == sum(path.stat().st_size for path in decoder_bundle.iterdir())


def test_each_kind_says_what_to_use_instead(decoder_bundle: Path, encoder_bundle: Path) -> None:
    with pytest.raises(InputError, match="generate"):
        _ = Bundle.open(decoder_bundle).encoder
    with pytest.raises(InputError, match="encode"):
        _ = Bundle.open(encoder_bundle).decoder


@pytest.mark.chain
def test_every_single_bit_flip_is_caught(own_bundle: Path) -> None:
    generator = random.Random(0)
    names = sorted(json.loads((own_bundle / "manifest.json").read_text())["files"])
    assert {"model.onnx", "model.onnx.data", "tokenizer.json", "chat_template.jinja"} <= set(names)
    for _ in range(500):
        path = own_bundle / generator.choice(names)
        bit = generator.randrange(8 * path.stat().st_size)
        _flip_bit(path, bit)
        with pytest.raises(BundleError, match=path.name):
            Bundle.open(own_bundle)
        assert any(path.name in problem for problem in verify_directory(own_bundle).problems)
        _flip_bit(path, bit)
    Bundle.open(own_bundle)


@pytest.mark.chain
def test_a_flip_in_the_manifest_is_refused_or_changes_its_hash(own_bundle: Path) -> None:
    manifest = own_bundle / "manifest.json"
    published = Bundle.open(own_bundle).manifest_sha256
    generator = random.Random(1)
    for _ in range(100):
        bit = generator.randrange(8 * manifest.stat().st_size)
        _flip_bit(manifest, bit)
        with suppress(EdgepressError):
            assert Bundle.open(own_bundle).manifest_sha256 != published
        _flip_bit(manifest, bit)


def _added(folder: Path) -> None:
    (folder / "extra.py").write_text("x")


def _added_below(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "extra").write_text("x")


def _removed(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _renamed(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder / "Tokenizer.json")


def _swapped(folder: Path) -> None:
    first, second = folder / "tokenizer.json", folder / "tokenizer_config.json"
    first.rename(folder / "x")
    second.rename(first)
    (folder / "x").rename(second)


def _truncated(folder: Path) -> None:
    with (folder / "model.onnx.data").open("r+b") as stream:
        stream.truncate(100)


def _linked_in(folder: Path) -> None:
    (folder / "extra").symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    "damage",
    [_added, _added_below, _removed, _renamed, _swapped, _truncated, _linked_in],
    ids=lambda f: f.__name__,
)
def test_damage_to_the_files_is_caught(own_bundle: Path, damage: Callable[[Path], None]) -> None:
    damage(own_bundle)
    with pytest.raises(BundleError, match="does not match"):
        Bundle.open(own_bundle)
    assert verify_directory(own_bundle).problems


def _symlink(folder: Path, name: str) -> None:
    (folder / name).rename(folder.parent / "outside")
    (folder / name).symlink_to(folder.parent / "outside")


def _hard_link(folder: Path, name: str) -> None:
    os.link(folder / name, folder.parent / "outside")


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "tokenizer.json"])
@pytest.mark.parametrize("link", [_symlink, _hard_link], ids=lambda f: f.__name__)
@pytest.mark.parametrize("verify", [True, False])
def test_links_to_the_outside_are_refused_though_the_bytes_match(
    own_bundle: Path, link: Callable[[Path, str], None], name: str, verify: bool
) -> None:
    link(own_bundle, name)
    with pytest.raises(RefusedByPolicy, match=name):
        Bundle.open(own_bundle, verify=verify)


def test_a_linked_directory_of_files_is_refused(own_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x").write_text("x")
    (own_bundle / "sub").symlink_to(tmp_path / "elsewhere")
    manifest = json.loads((own_bundle / "manifest.json").read_text())
    manifest["files"]["sub/x"] = hash_tree(tmp_path / "elsewhere")["x"]
    write_json(own_bundle / "manifest.json", manifest)
    with pytest.raises(RefusedByPolicy, match="sub/x"):
        Bundle.open(own_bundle)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no FIFOs")
@pytest.mark.parametrize("verify", [True, False])
def test_a_fifo_in_the_place_of_a_file_is_not_opened(own_bundle: Path, verify: bool) -> None:
    (own_bundle / "model.onnx").unlink()
    os.mkfifo(own_bundle / "model.onnx")
    with pytest.raises(RefusedByPolicy, match=r"model\.onnx is no regular file"):
        Bundle.open(own_bundle, verify=verify)


def test_hard_links_among_the_files_of_a_bundle_are_fine(own_bundle: Path) -> None:
    os.link(own_bundle / "tokenizer.json", own_bundle / "tokenizer.copy.json")
    edit_manifest(own_bundle)
    assert Bundle.open(own_bundle).kind == "decoder"


@pytest.mark.parametrize("location", ["../outside.data", "/etc/passwd", "other.data", "*/_ORT_MEM_ADDR_/*"])
def test_a_graph_that_points_outside_the_manifest_is_refused(own_bundle: Path, location: str) -> None:
    (own_bundle.parent / "outside.data").write_bytes((own_bundle / "model.onnx.data").read_bytes())
    model = onnx.load(own_bundle / "model.onnx", load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    onnx.save(model, own_bundle / "model.onnx")
    edit_manifest(own_bundle)
    with pytest.raises(RefusedByPolicy, match="does not list"):
        Bundle.open(own_bundle)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("offset", "1000000000", "beyond the end"),
        ("length", "1000000000", "beyond the end"),
        ("length", "-4", "is no number"),
        ("offset", "4.0", "is no number"),
    ],
)
def test_a_graph_that_reads_beyond_its_file_is_refused(
    own_bundle: Path, key: str, value: str, problem: str
) -> None:
    model = onnx.load(own_bundle / "model.onnx", load_external_data=False)
    outside = next(tensor for tensor in model.graph.initializer if tensor.external_data)
    entry = outside.external_data.add()
    entry.key, entry.value = key, value
    onnx.save(model, own_bundle / "model.onnx")
    edit_manifest(own_bundle)
    with pytest.raises(BundleError) as caught:
        Bundle.open(own_bundle)
    assert problem in f"{caught.value}"


def test_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a bundle"):
        Bundle.open(tmp_path)
    with pytest.raises(BundleError, match="not a bundle") as absent:
        Bundle.open(tmp_path / "missing")
    assert absent.value.why == "there is no such directory"
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BundleError, match="not a bundle") as checkpoint:
        Bundle.open(tmp_path)
    assert checkpoint.value.why == "it is a checkpoint"
    assert checkpoint.value.fix == f"make one with: edgepress export {tmp_path} -o BUNDLE"
    with pytest.raises(InputError, match="nothing to verify"):
        verify_directory(tmp_path / "missing")


def test_unknown_keys_are_left_alone(own_bundle: Path) -> None:
    edit_manifest(own_bundle, novelty={"deep": [1, 2]})
    assert Bundle.open(own_bundle).manifest["novelty"] == {"deep": [1, 2]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "edgepress.bundle/9"}, "schema"),
        ({"kind": "encoder"}, "needs the section"),
        ({"kind": "classifier"}, "kind"),
        ({"graph": {"file": "../model.onnx"}}, "graph"),
        ({"graph": {"file": "absent.onnx"}}, "not among the files"),
        ({"decoder": {"layers": 7}}, "decoder.layers"),
    ],
)
def test_wrong_values_are_named(own_bundle: Path, change: dict[str, Any], message: str) -> None:
    edit_manifest(own_bundle, **change)
    with pytest.raises(BundleError, match=message):
        Bundle.open(own_bundle)


@pytest.mark.parametrize(
    "name", ["../outside.data", "/etc/passwd", "sub/../../x", "a\\b", "", "./x", "x" * 300]
)
@pytest.mark.parametrize("verify", [True, False])
def test_names_outside_the_directory_are_refused(own_bundle: Path, name: str, verify: bool) -> None:
    manifest = json.loads((own_bundle / "manifest.json").read_text())
    manifest["files"][name] = {"sha256": "0" * 64, "bytes": 1}
    write_json(own_bundle / "manifest.json", manifest)
    with pytest.raises(BundleError, match="not a plain file name"):
        Bundle.open(own_bundle, verify=verify)
    with pytest.raises(BundleError, match="not a plain file name"):
        verify_directory(own_bundle)


def test_numbers_written_as_text_are_refused(own_bundle: Path) -> None:
    section = json.loads((own_bundle / "manifest.json").read_text())["decoder"]
    edit_manifest(own_bundle, decoder=section | {"vocab_size": "300"})
    with pytest.raises(BundleError, match=r"decoder\.vocab_size"):
        Bundle.open(own_bundle)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["../x", "/etc/passwd", "a\x00b", "x" * 5000, "\ud800", "", ".", "model.onnx/..", -1, 2**63]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def _paths(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return [prefix, *(path for key, child in children for path in _paths(child, (*prefix, key)))]


def _replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[path[0]] = _replaced(copy[path[0]], path[1:], value)
    return copy


@pytest.mark.chain
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_manifest_gives_only_typed_errors(
    own_bundle: Path, decoder_bundle: Path, data: st.DataObject
) -> None:
    document = json.loads((decoder_bundle / "manifest.json").read_text())
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(_paths(document)))
        document = _replaced(document, path, data.draw(json_values))
    if data.draw(st.booleans()) and isinstance(document, dict) and isinstance(document.get("files"), dict):
        name = data.draw(
            st.text(max_size=300) | st.sampled_from(["../x", "/etc/passwd", "sub/../../x", "\ud800"])
        )
        document["files"][name] = {"sha256": "0" * 64, "bytes": 1}
    (own_bundle / "manifest.json").write_text(json.dumps(document))
    for action in (Bundle.open, verify_directory):
        with suppress(EdgepressError):
            action(own_bundle)


@pytest.mark.parametrize("raw", [b"", b"{", b"[" * 100_000, b"null", b"\xff\xfe", b'{"schema": 1}', b"NaN"])
def test_bytes_that_are_no_manifest(own_bundle: Path, raw: bytes) -> None:
    (own_bundle / "manifest.json").write_bytes(raw)
    with pytest.raises(BundleError, match="manifest"):
        Bundle.open(own_bundle)


def test_a_compressed_checkpoint_is_verified_too(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    files = hash_tree(tmp_path)
    write_json(tmp_path / "edgepress.json", {"schema": "edgepress.checkpoint/1", "files": files})
    found = verify_directory(tmp_path)
    assert (found.kind, found.files, found.bytes, found.problems) == ("checkpoint", 2, 9, ())
    (tmp_path / "model.safetensors").write_bytes(b"Weights")
    assert verify_directory(tmp_path).problems == ("model.safetensors does not match its SHA-256",)


def test_the_hashes_of_the_weights_alone_can_wait(own_bundle: Path) -> None:
    for name, waits in (("model.onnx.data", True), ("tokenizer.json", False), ("model.onnx", False)):
        path = own_bundle / name
        raw = path.read_bytes()
        _flip_bit(path, 8 * (len(raw) // 2))
        if waits:
            bundle = Bundle.open(own_bundle, weights_later=True)
            with pytest.raises(BundleError, match=f"{name} does not match its SHA-256"):
                load_graph(bundle, threads=1)
            with pytest.raises(BundleError, match=name):
                open_bundle(own_bundle, threads=1)
            with pytest.raises(BundleError, match=name):
                TextModel(bundle, threads=1).generate("coins", chat=False)
        else:
            with pytest.raises(BundleError, match=name):
                Bundle.open(own_bundle, weights_later=True)
        path.write_bytes(raw)
    load_graph(Bundle.open(own_bundle, weights_later=True), threads=1)
    os.truncate(own_bundle / "model.onnx.data", 8)
    with pytest.raises(BundleError, match="has 8 bytes"):
        Bundle.open(own_bundle, weights_later=True)


def test_an_unreadable_file_is_a_typed_error(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may read everything, so the refusal is simulated at the call that would meet it.
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("edgepress.files.hashed_tree.sha256_file", refuse)
    with pytest.raises(BundleError, match="Permission denied"):
        Bundle.open(own_bundle)


def test_copies_open_anywhere(decoder_bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(decoder_bundle, tmp_path / "a folder with spaces and ü")
    assert Bundle.open(copy).manifest_sha256 == Bundle.open(decoder_bundle).manifest_sha256
