"""NVML from a made-up module: which board, what it refuses, and joules from its millijoules."""

import sys
from types import ModuleType

import pytest
from edgepress.devices.energy import Meter, MeterLost, NoMeter
from edgepress.devices.meters import nvml


class NVMLError(Exception):
    """The root of the module's errors."""


class Boards(ModuleType):
    """As ``pynvml``: boards by index with their millijoules; ``broken`` names functions that fail."""

    NVMLError = NVMLError

    def __init__(self, millijoules: list[int]) -> None:
        super().__init__("pynvml")
        self.__spec__ = object()  # type: ignore[assignment]
        self.millijoules, self.broken, self.mig = millijoules, {"mig"}, 0

    def _may(self, name: str) -> None:
        if name in self.broken:
            raise NVMLError("Not Supported")

    def nvmlInit(self) -> None:
        self._may("init")

    def nvmlDeviceGetCount(self) -> int:
        return len(self.millijoules)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        return int(uuid.removeprefix("GPU-"))

    def nvmlDeviceGetMigMode(self, _: int) -> list[int]:
        self._may("mig")
        return [self.mig, self.mig]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        self._may("energy")
        return self.millijoules[handle]


@pytest.fixture
def boards(monkeypatch: pytest.MonkeyPatch) -> Boards:
    made = Boards([1000])
    monkeypatch.setitem(sys.modules, "pynvml", made)
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)
    return made


def found() -> Meter:
    meter = nvml.find()
    assert isinstance(meter, Meter)
    return meter


def refused() -> NoMeter:
    answer = nvml.find()
    assert isinstance(answer, NoMeter)
    return answer


def test_millijoules_become_joules(boards: Boards) -> None:
    meter = found()
    assert (meter.method, meter.update_s) == ("nvml_counter", 0.1)
    before = meter.read()
    boards.millijoules[0] = 3500
    assert meter.between(before, meter.read()).joules == 2.5


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "find_spec", lambda _: None)
    assert "edgepress[energy]" in refused().fix


@pytest.mark.parametrize("name", ["init", "energy"])
def test_what_the_driver_refuses_is_the_reason(boards: Boards, name: str) -> None:
    boards.broken.add(name)
    assert refused().reason == "the GPU's energy counter cannot be read: Not Supported"


def test_a_slice_of_a_board_has_no_counter(boards: Boards) -> None:
    boards.broken.clear()
    assert isinstance(found(), Meter)
    boards.mig = 1
    assert "MIG" in refused().reason


def test_a_slice_that_is_named_is_not_taken_for_one_of_several_boards(
    boards: Boards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-41b36014-1d4a-5b5c-b1e3-7b5f3a9e1c11")
    assert "MIG" in refused().reason and not refused().fix


@pytest.mark.parametrize(
    ("visible", "order", "millijoules"),
    [("", "PCI_BUS_ID", 1), ("1", "PCI_BUS_ID", 2), ("GPU-2", "", 3), ("2,0", "PCI_BUS_ID", 3)],
)
def test_the_board_that_cuda_takes(
    boards: Boards, monkeypatch: pytest.MonkeyPatch, visible: str, order: str, millijoules: int
) -> None:
    boards.millijoules = [1, 2, 3]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    assert found().read() == {"gpu": 1000 * millijoules}


@pytest.mark.parametrize("visible", ["", "1"])
def test_which_of_several_boards_is_never_guessed(
    boards: Boards, monkeypatch: pytest.MonkeyPatch, visible: str
) -> None:
    boards.millijoules = [1, 2]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in refused().fix


def test_a_counter_that_stops_answering_is_lost(boards: Boards) -> None:
    meter = found()
    boards.broken.add("energy")
    with pytest.raises(MeterLost, match="Not Supported"):
        meter.read()
