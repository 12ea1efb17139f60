"""Processors of Apple and of NVIDIA's Jetson boards, whose counters are read through zeus (You, Chung and
Chowdhury, NSDI 2023): the CPU counts, and what lies beside it is shown. Not yet run on such a machine.
"""

import platform
import sys
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..energy import Counter, Meter, MeterLost, NoMeter

DEVICE = "cpu"
JETSON = Path("/etc/nv_tegra_release")
# Its readings are of the last sample that it took in the background.
UPDATE_S = 0.1
# By zeus's name of it on Apple's processors, on a Jetson, and on one that shows the whole board alone.
COUNTED = ("cpu_total_mj", "cpu_energy_mj", "total_energy_mj")
MISSING = NoMeter(
    "the energy counters of this processor are read with zeus, which is not installed",
    'pip install "edgepress[soc]"',
)


def find() -> Meter | NoMeter | None:
    """The counters of a system on a chip; None on another machine."""
    apple = sys.platform == "darwin" and platform.machine() == "arm64"
    if not apple and not JETSON.exists():
        return None
    if find_spec("zeus") is None:
        return MISSING
    zeus = import_module("zeus.device.soc")
    try:
        return meter_of(zeus.get_soc())
    except (zeus.ZeusSoCInitError, MeterLost) as error:
        return NoMeter(f"the energy counters of this processor cannot be read: {error}")


def meter_of(soc: Any) -> Meter:
    """The meter of what zeus calls a SoC."""
    read = vars(soc.get_total_energy_consumption())
    known = sorted(name for name, value in read.items() if _is_total(name, value))
    counted = next((name for name in COUNTED if name in known), None)
    if counted is None:
        raise MeterLost(f"none of {', '.join(COUNTED)} among {', '.join(known) or 'nothing'}")
    counters = {name: Counter(_domain(name), partial(_microjoules, soc, name)) for name in known}
    first = counters.pop(counted)
    return Meter("zeus_soc", (first,), tuple(counters.values()), UPDATE_S)


def _is_total(name: str, value: object) -> bool:
    return name.endswith("_mj") and isinstance(value, int | float)


def _domain(name: str) -> str:
    return name.removesuffix("_mj").removesuffix("_energy").removesuffix("_total").replace("_", "-")


def _microjoules(soc: Any, name: str) -> int:
    value = getattr(soc.get_total_energy_consumption(), name)
    if not isinstance(value, int | float):
        raise MeterLost(f"the energy counter {_domain(name)} cannot be read any longer")
    return round(1000 * value)
