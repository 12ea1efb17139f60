"""Which device the sweep runs on: ``auto``, ``cpu``, ``cuda`` (or ``cuda:1``) and ``mps``."""

from __future__ import annotations

import torch

from ...errors import MissingDependency, UnknownName


def choose_device(name: str) -> torch.device:
    """The torch device called ``name``; ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        MissingDependency: the device is not there.
        UnknownName: no such kind of device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdigit()):
        raise UnknownName("device", name, ["auto", "cpu", "cuda", "mps"])
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}[kind]
    if not present or (kind == "cuda" and index and int(index) >= torch.cuda.device_count()):
        raise MissingDependency(
            f"device {name!r} is not available here", fix="see `edgepress doctor`, or use --device cpu"
        )
    return torch.device(name)
