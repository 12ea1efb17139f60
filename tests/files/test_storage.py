"""Hashes, contained names, atomic files, and what the file system says as typed errors."""

import ast
import errno
import hashlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from edgepress.errors import InputError, OutOfResource, RefusedByPolicy
from edgepress.files import storage
from edgepress.files.disk import disk_full_is_typed, sync_tree
from edgepress.files.storage import (
    canonical_json,
    contained,
    lines_of,
    named_path,
    read_json,
    sha256_file,
    sha256_json,
    write_atomic,
    write_json,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# The function-scoped tmp_path is only looked at, never written by the examples that share it.
shared_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.chain
@given(value=JSON)
def test_canonical_json_is_one_text_for_one_value(value: Any) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(json.dumps(value))) == text
    assert sha256_json(value) == hashlib.sha256(text.encode()).hexdigest()


def test_canonical_json_ignores_the_order_of_keys_and_refuses_nan() -> None:
    assert canonical_json({"b": 1, "a": [2]}) == '{"a":[2],"b":1}' == canonical_json({"a": [2], "b": 1})
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("\n", [""]),
        ("a\nb", ["a", "b"]),
        ("a\n\nb\n", ["a", "", "b"]),
        ("\u2028\x85\x0c\n", ["\u2028\x85\x0c"]),
    ],
)
def test_lines_end_at_line_feeds_alone(text: str, lines: list[str]) -> None:
    assert lines_of(text) == lines


def test_no_reader_of_json_lines_ends_them_elsewhere() -> None:
    """``str.splitlines`` would cut a JSON string in two that holds U+2028."""
    root = Path(storage.__file__).parents[1]
    found = [
        f"{path.name}: {function.name}"
        for folder in ("benchmarks", "cli", "compress", "devices", "export", "files", "fit", "runtime")
        for path in (root / folder).rglob("*.py")
        if ".splitlines()" in (text := path.read_text(encoding="utf-8"))
        for function in ast.walk(ast.parse(text))
        if isinstance(function, ast.FunctionDef)
        and ".splitlines()" in (code := ast.get_source_segment(text, function) or "")
        and re.search(r"json\.loads|model_validate_json", code)
    ]
    assert found == []


def test_sha256_file(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "f").write_bytes(data)
    assert sha256_file(tmp_path / "f") == hashlib.sha256(data).hexdigest()


def test_cache_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "chosen"))
    assert storage.cache_directory() == tmp_path / "chosen"
    monkeypatch.setenv("EDGEPRESS_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert storage.cache_directory() == tmp_path / "edgepress"


PARTS = st.sampled_from(["a", "..", ".", "", "/", "link", "loop", "\x00", "\ud800", "x" * 300, "b.txt"])


@pytest.mark.chain
@shared_folder
@given(name=st.lists(PARTS | st.text(max_size=5), max_size=5).map("/".join))
def test_contained_never_leaves_its_directory(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    if not root.exists():
        root.mkdir()
        (root / "link").symlink_to(tmp_path)
        (root / "loop").symlink_to("loop")
    try:
        path = contained(root, name)
    except RefusedByPolicy:
        return
    # By the system's own resolution, not by what the function used.
    assert os.path.commonpath([os.path.realpath(path), os.path.realpath(root)]) == os.path.realpath(root)
    assert path.resolve() != root.resolve() and ".." not in path.parts


@pytest.mark.parametrize("name", ["a", "1_Pooling/config.json", "./a", "...", "a..b"])
def test_contained_takes_plain_names(tmp_path: Path, name: str) -> None:
    assert contained(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize("name", ["", ".", "..", "/etc/passwd", "a/../../b", "a/..", "a\x00b", "out/secret"])
def test_contained_refuses(tmp_path: Path, name: str) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "out").symlink_to(tmp_path)
    with pytest.raises(RefusedByPolicy):
        contained(tmp_path / "root", name)


def test_write_atomic_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new" and names(tmp_path) == ["f"]


def test_a_failed_write_keeps_the_old_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    write_atomic(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutOfResource, match="disk is full"), disk_full_is_typed(path):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old" and names(tmp_path) == ["f"]


def test_write_atomic_leaves_what_a_user_has_beside(tmp_path: Path) -> None:
    """The names that earlier versions wrote to, as links into somebody's file."""
    victim, path = tmp_path / "victim", tmp_path / "f"
    victim.write_text("years")
    (tmp_path / f".f.{os.getpid()}.tmp").symlink_to(victim)
    (tmp_path / ".f.tmp").write_text("mine")
    before = names(tmp_path)
    write_atomic(path, b"new")
    assert victim.read_text() == "years" and (tmp_path / ".f.tmp").read_text() == "mine"
    assert names(tmp_path) == sorted([*before, "f"]) and path.read_bytes() == b"new"


def test_write_atomic_never_writes_into_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even of the very name that it chose."""
    monkeypatch.setattr(os, "urandom", bytes)
    victim, link = tmp_path / "victim", tmp_path / f".f.{bytes(6).hex()}.tmp"
    victim.write_text("years")
    link.symlink_to(victim)
    with pytest.raises(InputError, match="cannot write"), disk_full_is_typed(tmp_path / "f"):
        write_atomic(tmp_path / "f", b"new")
    assert victim.read_text() == "years" and link.is_symlink()


def test_json_round_trip(tmp_path: Path) -> None:
    value = {"b": [1, None, "größer"], "a": {"x": 0.1}}
    write_json(tmp_path / "f.json", value)
    text = (tmp_path / "f.json").read_text(encoding="utf-8")
    assert read_json(tmp_path / "f.json") == value
    assert text.endswith("}\n") and text.index('"a"') < text.index('"b"') and "größer" in text


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 10_000, b'{"a": 1} x', b'{"\\ud800": 1}'],
    ids=repr,
)
def test_broken_json_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"config\.json is not valid JSON"):
        read_json(path)


def test_json_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("[1, 2]")
    with pytest.raises(InputError, match="larger than 3 bytes"):
        read_json(tmp_path / "f", limit=3)
    with pytest.raises(InputError, match="missing file"):
        read_json(tmp_path / "nothing")
    for path in (tmp_path, tmp_path / "f" / "below"):
        with pytest.raises(InputError, match="cannot read"):
            read_json(path)


@pytest.mark.parametrize(
    "size", [0, 1, storage.mmap.ALLOCATIONGRANULARITY, 3 * storage.mmap.ALLOCATIONGRANULARITY + 7]
)
def test_a_mapped_file_has_the_hash_of_its_bytes(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "WINDOW", storage.mmap.ALLOCATIONGRANULARITY)
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(size))
    assert storage.sha256_mapped(path) == storage.sha256_file(path)


def test_a_path_with_a_nul_is_refused() -> None:
    assert named_path("a") == Path("a")
    with pytest.raises(InputError):
        named_path("a\0b")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_nobody_else_may_write_to_what_is_written_under_any_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_atomic(tmp_path / "file", b"text")
        (tmp_path / "tree/below").mkdir(parents=True)
        (tmp_path / "tree/below/file").write_bytes(b"text")
        sync_tree(tmp_path / "tree")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"file": 0o644, "tree": 0o755, "below": 0o755}
