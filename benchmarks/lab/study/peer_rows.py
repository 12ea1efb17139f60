"""Rows of other tools: made in their own environments, from the same tokens, measured as all other rows."""

import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

from ....compress.model.models import resolve
from ....files.storage import write_json
from ..peers.children import work
from ..peers.contract import QuantizerVariant
from ..peers.workspace import Workspace, peers, trouble
from .schema import Peer

_TIMEOUT = 7200.0  # AutoRound needs most: 200 iterations take it most of an hour


def tool(peer: Peer) -> ModuleType:
    """The module of a row's tool."""
    return peers(peer.kind)[peer.tool]


def described(peer: Peer) -> str:
    """The tool, what of it, and its options, for a table."""
    module = tool(peer)
    variant = module.VARIANTS[peer.variant]
    options = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in peer.options.items())
    if isinstance(variant, QuantizerVariant):
        shown = variant.method
    else:
        shown = variant if isinstance(variant, str) else ", ".join(map(str, variant))
    return f"{module.TITLE}: {shown}" + (f" ({options})" if options else "")


def make_by_peer(
    peer: Peer, teacher: str, student: str, tokens: Path, target: Path, place: Workspace
) -> tuple[dict[str, Any] | None, str]:
    """Let the tool write the checkpoint ``target`` from ``student``, and ``teacher`` where it has one.

    Returns:
        What it cost and its versions, or None and the end of what the tool said.
    """
    module = tool(peer)
    error = trouble(place, peer.tool, module)
    if error:
        return None, error
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    job = {"variant": peer.variant, "output": str(partial), **peer.options}
    job |= {"checkpoint": str(resolve(student).path), "calibration": str(tokens)}
    job |= {"teacher": str(resolve(teacher).path)}
    done = work(place, peer.tool, module, job, timeout=_TIMEOUT, threads=1)
    if done.reply is None:
        return None, done.error
    (partial / "checkpoint").rename(target)
    shutil.rmtree(partial)
    cost = {"cpu_seconds": done.cpu_s, "rss_mb": done.peak_rss_bytes / 2**20}
    return {"versions": done.reply["versions"], **cost}, ""


def write_failure(file: Path, error: str) -> None:
    """Keep why a tool could not make its row, in one line."""
    write_json(file, {"error": " ".join(error.split())[-200:]})
