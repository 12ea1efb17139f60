"""The pinned environment of a device: the packages that measuring needs, in the versions that are installed
here, as wheels for its platform; and edgepress itself, made of the very files that run here.

They come from the folder ``EDGEPRESS_WHEELS`` where it has them, else from pip's package index, by hash.
"""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from ... import __version__
from ...errors import InputError, MissingDependency
from ...files.disk import make_folder
from ...files.storage import cache_directory, read_json, sha256_file, sha256_json, write_atomic, write_json
from ...runtime.kernels.library import library
from .fitness import Platform

NEEDED = (
    *("numpy", "onnxruntime", "tokenizers", "psutil", "pydantic", "pydantic-core"),
    *("annotated-types", "typing-extensions", "typing-inspection"),
)
# The build of ONNX Runtime that has an execution provider. What CUDA and TensorRT are is the device's own.
_ONNXRUNTIMES = {
    "cpu": "onnxruntime",
    "cuda": "onnxruntime-gpu",
    "tensorrt": "onnxruntime-gpu",
    "openvino": "onnxruntime-openvino",
}
_MOST_BYTES = 1 << 30  # of a wheel: three times the largest
_KINDS = (".py", ".yaml", ".jinja")
_LIBRARY = "edgepress/runtime/kernels/_kernels.so"
_WAY_OUT = "or collect the wheels in a folder and name it: EDGEPRESS_WHEELS=FOLDER"


@dataclass(frozen=True)
class Wheel:
    """One package as a file: ``path`` where it lies here, ``url`` where a device with a network finds it."""

    name: str
    sha256: str
    url: str = ""
    path: Path | None = None

    def file(self) -> Path:
        """The file, fetched if it must be."""
        if self.path is not None:
            return self.path
        kept = _store() / f"{self.sha256}.whl"
        if not kept.exists():
            make_folder(kept.parent)
            write_atomic(kept, _download(self))
        return kept


def environment(platform: Platform, provider: str = "cpu") -> list[Wheel]:
    """All that measuring with ``provider`` on ``platform`` needs, edgepress last."""
    return [*packages(platform, provider), own_wheel(platform)]


def packages(platform: Platform, provider: str = "cpu") -> list[Wheel]:
    """The wheels of others for ``platform``."""
    folder, wanted = _folder(), pins(provider)
    given = {} if folder is None else _from_folder(folder, platform, wanted)
    others = {name: version for name, version in wanted.items() if name not in given}
    return [*given.values(), *(_from_index(platform, others) if others else [])]


def key(wheels: list[Wheel]) -> str:
    """The identity of an environment."""
    return sha256_json(sorted(wheel.sha256 for wheel in wheels))


def pins(provider: str = "cpu") -> dict[str, str]:
    """The versions installed here of what is needed there; of a build of ONNX Runtime for ``provider`` that
    is not installed here none, which is the newest.
    """
    found: dict[str, str] = {}
    for name in NEEDED:
        if name == "onnxruntime" and provider != "cpu":
            build = _ONNXRUNTIMES[provider]
            found[build] = _installed(build) or ""
            continue
        builds = dict.fromkeys(_ONNXRUNTIMES.values()) if name == "onnxruntime" else (name,)
        version = next(filter(None, map(_installed, builds)), None)
        if version is None:
            raise MissingDependency(f"{name} is not installed here", fix='pip install "edgepress[cpu]"')
        found[name] = version
    return found


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _folder() -> Path | None:
    given = os.environ.get("EDGEPRESS_WHEELS")
    if given and not Path(given).is_dir():
        raise InputError(f"EDGEPRESS_WHEELS names {given}, which is no folder")
    return Path(given) if given else None


def _from_folder(folder: Path, platform: Platform, wanted: dict[str, str]) -> dict[str, Wheel]:
    """By name those that it has."""
    found = {}
    for name, version in wanted.items():
        start = f"{name.replace('-', '_')}-{f'{version}-' if version else ''}"
        names = sorted(one.name for one in folder.glob("*.whl") if one.name.startswith(start))
        for match in [one for one in names if platform.takes(one)][:1]:
            found[name] = Wheel(match, sha256_file(folder / match), path=folder / match)
    return found


def _from_index(platform: Platform, wanted: dict[str, str]) -> list[Wheel]:
    """As pip resolves them, without downloading; kept, so that the next time needs no network."""
    kept = _store() / f"{sha256_json([wanted, repr(platform)])}.json"
    if not kept.exists():
        make_folder(kept.parent)
        write_json(kept, _report(platform, wanted))
    return [Wheel(one["name"], one["sha256"], one["url"]) for one in read_json(kept)]


def _report(platform: Platform, wanted: dict[str, str]) -> list[dict[str, str]]:
    version = ".".join(map(str, platform.python))
    places = [word for tag in platform.tags for word in ("--platform", tag)]
    options = ["--dry-run", "--ignore-installed", "--no-deps", "--only-binary=:all:", "--report", "-"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", *options, "--target", "unused"]
    command += [*places, "--python-version", version, "--implementation", "cp"]
    pinned = [f"{name}=={number}" if number else name for name, number in wanted.items()]
    done = subprocess.run([*command, *pinned], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MissingDependency(
            f"there are no wheels for {platform.system} {platform.machine} with Python {version}",
            why=done.stderr.strip()[-600:],
            fix=f"see that pip reaches its index, {_WAY_OUT}",
        )
    return [_reported(one["download_info"]) for one in json.loads(done.stdout)["install"]]


def _reported(found: dict[str, Any]) -> dict[str, str]:
    """Name, address and hash of a wheel that pip found."""
    name = found["url"].rsplit("/", 1)[-1]
    sha256 = found.get("archive_info", {}).get("hashes", {}).get("sha256")
    if sha256 is None:
        raise MissingDependency(
            f"pip's index does not say the SHA-256 of {name}",
            why="what is sent to a device is known by its hash",
            fix=f"take another index, {_WAY_OUT}",
        )
    return {"name": name, "url": found["url"], "sha256": sha256}


def _download(wheel: Wheel) -> bytes:
    try:
        with urllib.request.urlopen(wheel.url, timeout=60) as source:
            data: bytes = source.read(_MOST_BYTES)
    except (urllib.error.URLError, OSError, ValueError) as error:
        fix = f"try again, {_WAY_OUT}"
        raise MissingDependency(f"cannot fetch {wheel.name}", why=str(error), fix=fix) from None
    if hashlib.sha256(data).hexdigest() != wheel.sha256:
        raise MissingDependency(f"{wheel.name} has other bytes than its index says", fix="try again")
    return data


def own_wheel(platform: Platform) -> Wheel:
    """edgepress as it runs here, with the library of operators for ``platform`` where there is one."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in [*_sources(), *_library(platform, _folder()), *_metadata()]:
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    sha256 = hashlib.sha256(data.getvalue()).hexdigest()
    path = _store() / f"{sha256}.whl"
    if not path.exists():
        make_folder(path.parent)
        write_atomic(path, data.getvalue())
    return Wheel(f"edgepress-{__version__}-py3-none-any.whl", sha256, path=path)


def has_library(platform: Platform) -> bool:
    """Whether bundles of edgepress's own operators can run there with what is sent."""
    return bool(list(_library(platform, _folder())))


def _sources() -> Iterator[tuple[str, bytes]]:
    """The files of the package; in a checkout those of the folders with code, without the lab."""
    root = Path(__file__).parents[2]
    for package in _packages(root):
        for path in sorted(package.iterdir()):
            if path.suffix in _KINDS:
                yield f"edgepress/{path.relative_to(root).as_posix()}", path.read_bytes()


def _packages(folder: Path) -> Iterator[Path]:
    yield folder
    for child in sorted(folder.iterdir()):
        if child.name != "lab" and (child / "__init__.py").exists():
            yield from _packages(child)


def _library(platform: Platform, folder: Path | None) -> Iterator[tuple[str, bytes]]:
    """This installation's where the platforms are the same; else that of a wheel in ``folder``."""
    here, built = os.uname() if hasattr(os, "uname") else None, library()
    if here is not None and built is not None and (here.sysname, here.machine) == _place(platform):
        content = built.read_bytes()
        if platform.system != "Linux" or _glibc_of(content) <= platform.glibc:
            yield _LIBRARY, content
            return
    wheels = sorted(folder.glob(f"edgepress-{__version__}-*.whl")) if folder else []
    for wheel in (one for one in wheels if platform.takes(one.name)):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.startswith(_LIBRARY.removesuffix(".so")):
                    yield name, archive.read(name)
                    return


def _place(platform: Platform) -> tuple[str, str]:
    return platform.system, platform.machine


def _glibc_of(content: bytes) -> tuple[int, int]:
    """The newest version of glibc whose symbols the library asks for."""
    return 2, max((int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", content)), default=0)


def _metadata() -> Iterator[tuple[str, bytes]]:
    text = f"Metadata-Version: 2.1\nName: edgepress\nVersion: {__version__}\n"
    yield f"edgepress-{__version__}.dist-info/METADATA", text.encode()


def _store() -> Path:
    return cache_directory() / "wheels"
