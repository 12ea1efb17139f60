"""The machines that a user has added: name, address, and what each said of itself when it was added.

They are kept in one file of the user's configuration, ``devices.json``.
"""

import os
import re
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import InputError, UnknownName
from ..files.disk import make_folder
from ..files.output_lock import alone
from ..files.storage import read_json, write_json
from .target import target_names
from .transports.answers import Facts
from .transports.ssh import require_address

SCHEMA = "edgepress.devices/1"
# What --on calls the machine in front of the user.
HERE = ("here", "this")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class OwnDevice(BaseModel):
    """A machine that ssh reaches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    ssh: str = Field(description="user@host, or a Host of the user's ssh configuration")
    facts: Facts


def configuration() -> Path:
    """The user's file of devices, in the platform's place for configuration."""
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA", Path.home())) / "edgepress" / "devices.json"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "edgepress" / "devices.json"
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "edgepress" / "devices.json"


def own_devices() -> dict[str, OwnDevice]:
    """By name."""
    path = configuration()
    if not path.exists():
        return {}
    data = read_json(path, limit=1 << 22)
    try:
        listed: Any = data["devices"] if data["schema"] == SCHEMA else None
        found = [OwnDevice.model_validate(one) for one in listed]
    except (KeyError, TypeError, ValidationError) as error:
        fix = "correct it, or delete it and add the devices again"
        raise InputError(f"{path} is no list of devices", why=str(error)[:300], fix=fix) from None
    for device in found:
        require_address(device.ssh)
    return {device.name: device for device in found}


def own_device(name: str) -> OwnDevice:
    """The device ``name``."""
    known = own_devices()
    if name not in known:
        fix = f"add it: edgepress devices add {name} --ssh USER@HOST"
        raise UnknownName("device", name, known, fix=fix if not known else "")
    return known[name]


def require_free_name(name: str) -> None:
    """Raise InputError where ``name`` is none, or is what ``--on`` calls something else."""
    if not _NAME.fullmatch(name):
        fix = "use lower-case letters, digits, dots and dashes"
        raise InputError(f"{name!r} cannot be the name of a device", fix=fix)
    if name in HERE or name in target_names():
        raise InputError(f"{name!r} is already the name of something else", fix="choose another name")


def keep(device: OwnDevice) -> None:
    """Add the device to the file, in place of one with its name."""
    with _alone():
        _write({**own_devices(), device.name: device})


def forget(name: str) -> None:
    """Take the device out of the file; raises UnknownName where it is not in it."""
    with _alone():
        own_device(name)
        _write({key: device for key, device in own_devices().items() if key != name})


def _alone() -> AbstractContextManager[None]:
    """No other process changes the file meanwhile, whose device would be lost."""
    path = configuration()
    make_folder(path.parent)
    return alone(path.with_name(f".{path.name}.lock"))


def _write(devices: dict[str, OwnDevice]) -> None:
    path = configuration()
    listed = [device.model_dump(mode="json") for _, device in sorted(devices.items())]
    write_json(path, {"schema": SCHEMA, "devices": listed})
