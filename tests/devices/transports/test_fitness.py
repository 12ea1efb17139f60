"""A device that cannot do the work is refused by what it says of itself, before anything is sent."""

import time
from typing import Any

import pytest
from edgepress.devices.transports.answers import DeviceError, Facts
from edgepress.devices.transports.fitness import clock_note, require_fit, require_provider, require_room
from edgepress.errors import OutOfResource

from .test_answers import FACTS


def facts(**changes: Any) -> Facts:
    return Facts.model_validate({**FACTS, **changes})


@pytest.mark.parametrize(
    "changes",
    [{}, {"machine": "x86_64", "python": "3.11.2"}, {"os": "Darwin", "machine": "arm64", "libc": ""}],
)
def test_what_it_runs_on(changes: dict[str, Any]) -> None:
    require_fit(facts(**changes), "pi")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"machine": "armv7l"}, "armv7l"),
        ({"machine": "riscv64"}, "riscv64"),
        ({"os": "FreeBSD"}, "FreeBSD"),
        ({"bits": 32}, "32 bits"),
        ({"python": "3.9.2"}, r"3\.9\.2"),
        ({"implementation": "pypy"}, "pypy"),
        ({"libc": ""}, "not glibc"),
        ({"libc": "glibc 2.27"}, r"2\.27"),
    ],
)
def test_what_it_does_not_run_on(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(DeviceError, match="edgepress cannot run on pi") as caught:
        require_fit(facts(**changes), "pi")
    assert caught.match(why)


def test_room_is_asked_for_before_anything_is_sent() -> None:
    require_room(facts(), "pi", memory=4 << 30, disk=4 << 30)
    with pytest.raises(OutOfResource, match="too little memory"):
        require_room(facts(), "pi", memory=7 << 30, disk=0)
    with pytest.raises(OutOfResource, match="too little disk"):
        require_room(facts(disk_free=1 << 30), "pi", memory=0, disk=1 << 30)


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_gpu_is_asked_for_before_anything_is_sent(provider: str) -> None:
    require_provider(facts(nvidia=True), "pi", provider)
    require_provider(facts(), "pi", "cpu")
    with pytest.raises(DeviceError, match="has no GPU of NVIDIA's") as refused:
        require_provider(facts(), "pi", provider)
    assert "leave --provider out" in refused.value.fix


def test_a_clock_that_is_off_is_said() -> None:
    assert clock_note(facts(clock=time.time()), "pi") == ""
    assert "behind" in clock_note(facts(clock=0.0), "pi")
    assert "ahead" in clock_note(facts(clock=time.time() + 7200), "pi")
