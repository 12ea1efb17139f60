"""Doctor's findings one by one, and the verb's exit code and document."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import edgepress
import pytest
from edgepress.cli.entry import run
from edgepress.devices import checks
from edgepress.devices.checks import (
    Finding,
    cuda_libraries,
    energy_counter,
    examine,
    extras,
    free_disk,
    onnxruntime_packages,
    onnxruntime_providers,
    packages,
    python_version,
    torch_device,
    writable,
)
from edgepress.devices.energy import Counter, Meter, NoMeter
from edgepress.devices.probe import Gpu, OnnxRuntime

GPU = Gpu(name="NVIDIA L4", memory_mib=23034, driver="550", power_limit_w=72, ecc=None, mig=None)
CPU_RUNTIME = OnnxRuntime(
    version="1.32.0", distributions=("onnxruntime",), providers=("CPUExecutionProvider",)
)


def test_old_python_fails() -> None:
    assert python_version((3, 10)).status == "fail"
    assert python_version((3, 12)).status == "ok"


def test_missing_packages_fail_only_when_needed() -> None:
    core = packages("core", {"click": "8"}, ["click", "rich"], fix="reinstall", needed=True)
    extra = packages("compress", {}, ["torch"], fix="install", needed=False)
    assert (core.status, core.detail, core.fix) == ("fail", "missing: rich", "reinstall")
    assert extra.status == "warn"
    assert packages("core", {"click": "8"}, ["click"], fix="", needed=True).status == "ok"


def test_extras_are_listed_with_the_way_to_get_one() -> None:
    found = extras({"fit": True, "images": False, "ray": False})
    assert (found.status, found.detail) == ("ok", "installed: fit; not installed: images, ray")
    assert "edgepress[images]" in found.fix
    assert extras({"fit": True}).fix == ""


def test_every_extra_has_a_line() -> None:
    stated = tomllib.loads((Path(edgepress.__file__).parent / "pyproject.toml").read_text(encoding="utf-8"))
    own_line = {"compress", "cpu", "gpu", "docs", "dev"}  # docs and dev are for those who work on edgepress
    assert set(checks.OPTIONAL) == set(stated["project"]["optional-dependencies"]) - own_line


def test_two_onnxruntimes_clash() -> None:
    clash = onnxruntime_packages({"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.0"})
    assert clash.status == "fail"
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in clash.fix
    assert onnxruntime_packages({"onnxruntime-gpu": "1.31.0"}).status == "ok"
    assert onnxruntime_packages({}).status == "warn"


def test_providers() -> None:
    assert onnxruntime_providers(CPU_RUNTIME, {}, []).status == "ok"
    unused = onnxruntime_providers(CPU_RUNTIME, {}, [GPU])
    assert unused.status == "warn" and "edgepress[gpu]" in unused.fix
    assert onnxruntime_providers(None, {"onnxruntime": "1.32.0"}, []).status == "fail"
    assert onnxruntime_providers(None, {}, []).status == "warn"


@pytest.mark.parametrize("said", ["", "Failed to load libcublas.so.13: no such file"])
def test_libraries_of_cuda_are_looked_for_where_there_is_a_gpu(
    monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setattr(checks, "load_cuda", lambda runtime: said)
    providers = ("CUDAExecutionProvider", "CPUExecutionProvider")
    runtime = OnnxRuntime(version="1.31.1", distributions=("onnxruntime-gpu",), providers=providers)
    (found,) = cuda_libraries(runtime, [GPU])
    assert found.status == ("warn" if said else "ok")
    assert found.detail.endswith("without libcublas.so.13" if said else "finds CUDA's libraries")
    assert found.fix.startswith("pip install") == bool(said)
    assert cuda_libraries(CPU_RUNTIME, [GPU]) == cuda_libraries(runtime, []) == []


def test_torch_without_cuda_beside_a_gpu() -> None:
    assert torch_device("2.13.0+cpu", []).status == "ok"
    assert torch_device("2.13.0+cpu", [GPU]).status == "warn"
    assert torch_device("2.13.0", [GPU]).status == "ok"
    assert "can run bundles" in torch_device(None, []).detail


def test_cache_must_be_writable(tmp_path: Path) -> None:
    assert writable("cache", tmp_path / "not/yet/there").status == "ok"
    occupied = tmp_path / "file"
    occupied.write_text("x")
    blocked = writable("cache", occupied / "cache")
    assert blocked.status == "fail" and "EDGEPRESS_CACHE" in blocked.fix


def test_small_disk_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_disk("disk", tmp_path).check == "disk"
    monkeypatch.setattr(checks, "SMALL_DISK", 1e18)
    assert free_disk("disk", tmp_path).status == "warn"


def test_energy_counter() -> None:
    meter = Meter("rapl_pkg", (Counter("package-0", lambda: 0),), (), 0.001)
    assert energy_counter("cpu", meter) == Finding("energy", "ok", "package-0 can be read (rapl_pkg)")
    assert energy_counter("cpu", NoMeter("no counter")).status == "ok"
    locked = energy_counter("cuda", NoMeter("locked", "unlock it"))
    assert (locked.check, locked.status, locked.fix) == ("energy cuda", "warn", "unlock it")


def test_verb_prints_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["doctor", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is (code == 0)
    assert [finding["check"] for finding in document["findings"]] == [finding.check for finding in examine()]


def test_verb_fails_with_four(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.0"}
    monkeypatch.setattr(
        checks, "installed", lambda *names: {name: both.get(name, "1") for name in names if name in both}
    )
    assert run(["doctor"]) == 4
    shown = capsys.readouterr().out
    assert "FAIL" in shown and "pip uninstall" in shown


@pytest.mark.chain
def test_doctor_imports_no_torch() -> None:
    code = (
        "import sys; from edgepress.devices import checks; checks.examine(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
