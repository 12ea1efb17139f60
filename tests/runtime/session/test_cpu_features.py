"""CPUs whose 8-bit products saturate are recognised from the flags that the kernel lists."""

from pathlib import Path

import onnx
import pytest
from edgepress.runtime.session import cpu_features as vnni
from edgepress.runtime.session.cpu_features import first_processor
from onnx import helper

TWO = "processor\t: 0\nmodel name\t: One: A\nflags\t\t: fpu avx2\n\nmodel name\t: Two\npower management:\n"


@pytest.mark.parametrize(
    ("flags", "saturates"),
    [
        ("fpu avx2 avx512f avx512_vnni", False),
        ("fpu avx2 avx_vnni", False),
        ("fpu avx2 avx512f", True),
        ("fpu not_avx512_vnni_at_all", True),
    ],
)
def test_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, saturates: bool) -> None:
    monkeypatch.setattr(vnni.platform, "machine", lambda: "x86_64")
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\nbogomips\t: 1\n")
    assert vnni.products_saturate(cpuinfo) is saturates


def test_unknown_x86_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vnni.platform, "machine", lambda: "AMD64")
    assert vnni.products_saturate(tmp_path / "missing")
    (tmp_path / "empty").write_text("")
    assert vnni.products_saturate(tmp_path / "empty")


def test_other_architectures_have_no_such_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vnni.platform, "machine", lambda: "aarch64")
    assert not vnni.products_saturate(tmp_path / "missing")


def test_the_first_processor_counts(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(TWO)
    assert first_processor(tmp_path / "cpuinfo") == {
        "processor": "0",
        "model name": "One: A",
        "flags": "fpu avx2",
        "power management": "",
    }


def test_no_file_says_nothing_and_neither_do_lines_without_a_name(tmp_path: Path) -> None:
    assert first_processor(tmp_path / "missing") == {}
    (tmp_path / "odd").write_bytes(b"\xff\xfe no field\n\n")
    assert first_processor(tmp_path / "odd") == {}


def test_graphs_that_ask_their_processor(tmp_path: Path) -> None:
    for name, asks in (("int8.products_are_exact", True), ("int8.zero", False)):
        node = helper.make_node("Equal", ["a", "b"], ["c"], name=name)
        graph = tmp_path / f"{asks}.onnx"
        onnx.save(helper.make_model(helper.make_graph([node], "g", [], [])), graph)
        assert vnni.asks_itself(graph) is asks
    assert not vnni.asks_itself(tmp_path / "missing.onnx")
