"""A GPU's kernel table without a GPU: its key, its cases, and the refusals."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from edgepress.cli.entry import run
from edgepress.devices.kernel_table import gpu, gpu_timing
from edgepress.devices.kernel_table.gpu import gpu_cases, gpu_key, gpu_table_path, measure_gpu
from edgepress.devices.kernel_table.gpu_timing import DeviceChain
from edgepress.devices.kernel_table.node_kinds import Fed
from edgepress.devices.kernel_table.table import Key, newest_table, read_table
from edgepress.devices.probe import Gpu
from edgepress.errors import BundleError, InputError, MissingDependency, UnknownName
from edgepress.terminal.progress import Silent

H100 = Gpu(name="NVIDIA H100", memory_mib=81559, driver="570.1", power_limit_w=700, ecc=None, mig=None)


@pytest.fixture
def with_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this ONNX Runtime had every provider."""
    monkeypatch.setattr(gpu, "require_provider", lambda provider: provider)
    monkeypatch.setattr(gpu, "read_gpus", lambda: [H100])


def test_a_provider_that_is_not_installed_is_refused() -> None:
    with pytest.raises(MissingDependency, match="'cuda' is not available") as caught:
        gpu_key("cuda")
    assert caught.value.exit_code == 4 and "edgepress[gpu]" in caught.value.fix
    with pytest.raises(UnknownName):
        gpu_key("cudda")


@pytest.mark.usefixtures("with_provider")
def test_the_key_is_of_the_gpu_its_driver_and_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    key = gpu_key("cuda")
    assert (key.processor, key.flags, key.provider, key.kernels) == (
        "NVIDIA H100",
        ["driver 570.1"],
        "cuda",
        "none",
    )
    other = H100.model_copy(update={"driver": "580.0"})
    monkeypatch.setattr(gpu, "read_gpus", lambda: [other])
    assert gpu_key("cuda").digest != key.digest
    with pytest.raises(InputError, match="no kernel table of tensorrt"):
        gpu_key("tensorrt")
    monkeypatch.setattr(gpu, "read_gpus", list)
    with pytest.raises(MissingDependency, match="no NVIDIA GPU"):
        gpu_key("cuda")


@pytest.mark.usefixtures("with_provider")
def test_of_several_kinds_the_key_is_that_of_cudas_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA counts the fastest first, nvidia-smi as they stand on the bus."""
    for name in ("CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    small = H100.model_copy(update={"name": "NVIDIA T400"})
    monkeypatch.setattr(gpu, "read_gpus", lambda: [small, H100])
    with pytest.raises(InputError, match="several kinds of GPUs") as caught:
        gpu_key("cuda")
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in caught.value.fix
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert gpu_key("cuda").processor == "NVIDIA T400"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert gpu_key("cuda").processor == "NVIDIA H100"
    monkeypatch.setattr(gpu, "read_gpus", lambda: [H100, H100])
    assert gpu_key("cuda").processor == "NVIDIA H100"


def test_the_cases_are_those_of_a_decoder_for_cuda() -> None:
    found = gpu_cases()
    fed = [one for case in found for one in case.kind.inputs if one is not None]
    assert {case.kind.domain for case in found} == {"", "com.microsoft"}
    assert not any(one.dtype == "float32" for one in fed)
    assert {"MatMulNBits", "GroupQueryAttention", "SkipSimplifiedLayerNormalization"} <= {
        case.kind.op for case in found
    }
    for case in found:
        if case.kind.op == "MatMulNBits":
            _, codes, scales = case.kind.inputs
            assert codes is not None and scales is not None
            assert case.kind.operation.read == codes.nbytes + scales.nbytes
        if case.kind.op == "GroupQueryAttention":
            assert len(case.kind.inputs) == 9


@pytest.mark.usefixtures("with_provider")
def test_a_table_of_a_gpu_is_not_taken_for_the_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = gpu_table_path(gpu_key("cuda"))
    path.parent.mkdir(parents=True)
    path.write_text("{}", encoding="utf-8")
    assert newest_table("here") is None


def test_every_operator_is_timed_on_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor is the device: the code is the same, and the runtime has these operators there."""
    first = {case.kind.op: case for case in reversed(gpu_cases())}
    monkeypatch.setattr(gpu, "gpu_cases", lambda: list(first.values()))
    monkeypatch.setattr(gpu_timing, "MOST_NODES", 2)
    monkeypatch.setattr(gpu, "_SECONDS", 0)
    key = Key(processor="a GPU", flags=[], runtime="1", provider="cpu", kernels="none")
    table = measure_gpu(key, tmp_path / "table.json", Silent())
    assert table.complete and {one.op for one in table.families} == set(first)
    assert read_table(tmp_path / "table.json") == table


def test_numbers_are_made_once_for_all_nodes_of_a_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table fills 34 GB of a GPU's memory; made one by one they would take twice its limit of time."""
    made = list[Fed]()
    array = DeviceChain._array
    monkeypatch.setattr(DeviceChain, "_array", lambda chain, fed: made.append(fed) or array(chain, fed))
    case = next(case for case in gpu_cases() if case.kind.op == "MatMulNBits")
    chain = DeviceChain(case.kind, "cpu", tmp_path, far=False, nodes=5)
    assert made == [fed for fed in case.kind.inputs if fed is not None]
    assert len(chain.time(seconds=0, passes=2)) == 2


def test_a_provider_that_times_nothing_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = gpu_cases()[0]
    kind = replace(wrong.kind, named="NoSuchOperator")
    monkeypatch.setattr(gpu, "gpu_cases", lambda: [replace(wrong, kind=kind)])
    key = Key(processor="a GPU", flags=[], runtime="1", provider="cpu", kernels="none")
    with pytest.raises(BundleError, match="no operator could be timed"):
        measure_gpu(key, tmp_path / "table.json", Silent())
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("with_provider")
def test_the_verb_shows_what_it_would_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices", "measure", "--provider", "cuda", "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["key"]["processor"] == "NVIDIA H100" and found["cases"] == len(gpu_cases())
    assert run(["devices", "measure", "pi", "--provider", "cuda", "--json"]) == 2


def test_the_verbs_refuse_without_the_provider(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["devices", "measure", "--provider", "cuda", "--dry-run"],
        ["devices", "measure", "--provider", "cuda"],
    ):
        assert run([*words, "--json"]) == 4
        assert json.loads(capsys.readouterr().out)["error"]["code"] == "E-MISSING"
