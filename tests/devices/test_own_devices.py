"""Devices that a user adds: kept in the user's configuration, shown in the list, forgotten on request."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from edgepress.cli.entry import run
from edgepress.devices import own_devices as own_devices_module
from edgepress.devices.own_devices import (
    OwnDevice,
    configuration,
    forget,
    keep,
    own_device,
    own_devices,
    require_free_name,
)
from edgepress.devices.transports.answers import Facts
from edgepress.errors import InputError, UnknownName

from ..loopback import Loopback
from .transports.test_answers import FACTS


@pytest.fixture(autouse=True)
def own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


PI = OwnDevice(name="pi", ssh="pi@raspberrypi", facts=Facts.model_validate(FACTS))


def test_kept_and_forgotten() -> None:
    assert own_devices() == {}
    keep(PI)
    keep(PI.model_copy(update={"name": "laptop"}))
    keep(PI.model_copy(update={"ssh": "pi@10.0.0.2"}))
    assert list(own_devices()) == ["laptop", "pi"] and own_device("pi").ssh == "pi@10.0.0.2"
    forget("pi")
    with pytest.raises(UnknownName, match="known: laptop"):
        own_device("pi")


def test_devices_that_are_added_at_once_are_all_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = own_devices_module.write_json

    def slowly(path: Path, value: Any) -> None:
        time.sleep(0.01)
        plain(path, value)

    monkeypatch.setattr(own_devices_module, "write_json", slowly)
    names = [f"pi{number}" for number in range(8)]
    threads = [threading.Thread(target=keep, args=(PI.model_copy(update={"name": name}),)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(own_devices()) == names
    assert [path.name for path in configuration().parent.iterdir()] == ["devices.json"]


@pytest.mark.parametrize("name", ["here", "this", "raspberry-pi-5", "", "Pi", "a/b", "-x", "a" * 65])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(InputError):
        require_free_name(name)


@pytest.mark.parametrize("text", ["[]", "{", '{"schema": "edgepress.devices/1", "devices": [{}]}'])
def test_a_damaged_file_is_typed(text: str) -> None:
    configuration().parent.mkdir(parents=True)
    configuration().write_text(text)
    with pytest.raises(InputError, match=r"devices\.json"):
        own_devices()


def test_an_address_in_the_file_is_checked_as_one_that_is_typed() -> None:
    keep(PI.model_copy(update={"ssh": "-oProxyCommand=id"}))
    with pytest.raises(InputError, match="no address"):
        own_devices()


@pytest.mark.chain
def test_the_commands(loopback: Loopback, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices", "add", "pi", "--ssh", "loopback", "--no-measure", "--json"]) == 0
    added = json.loads(capsys.readouterr().out)
    assert added["ssh"] == "loopback" and added["facts"]["memory_total"] > 0
    assert run(["devices", "list"]) == 0
    assert "loopback" in capsys.readouterr().out
    assert any((loopback.home / "cache/device/environments").iterdir()), "the packages are there"
    assert run(["devices", "remove", "pi", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"removed": "pi", "cleared": True}
    assert not (loopback.home / "cache/device").exists()
    assert own_devices() == {}


@pytest.mark.chain
def test_a_device_that_is_gone_can_be_forgotten(
    loopback: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["devices", "add", "pi", "--ssh", "loopback", "--no-measure"]) == 0
    loopback.stop()
    assert run(["devices", "add", "pi2", "--ssh", "loopback", "--no-measure"]) == 4
    assert "E-DEVICE" in capsys.readouterr().err
    assert run(["devices", "remove", "pi"]) == 0
    assert "stays" in capsys.readouterr().err and own_devices() == {}
