"""The licence of a model, as its own files state it: the model card, or a licence text that is known word for
word. Where they say nothing it is None, and card and bill of materials call it unknown.
"""

import hashlib
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...files.storage import read_json
from .weights import MANIFEST

CARD = "README.md"
_LARGEST = 1 << 20
_NAME = re.compile(r"[\w.+-]{1,64}")

# The identifiers of SPDX, which model cards write in lower case.
SPDX = {
    name.lower(): name
    for name in (
        *("Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MPL-2.0", "Unlicense", "CC0-1.0"),
        *("CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0"),
        *("GPL-2.0-only", "GPL-3.0-only", "LGPL-2.1-only", "LGPL-3.0-only", "AGPL-3.0-only", "AFL-3.0"),
    )
}
# The words of a text, its SHA-256, and the few that may stand around it: title and holders, how to apply it.
_TEXTS = {
    "Apache-2.0": (
        r"(?:\w+ ){0,12}(terms and conditions for use .* end of terms and conditions)"
        r"(?: appendix how to apply the apache license(?: \w+){0,220} limitations under the license)?",
        "842e75d3e7964c89a3d62f7625eedd739ddb76568f8cfcb8e5e0bb3e7ac0953b",
    ),
    "MIT": (
        r"(?:\w+ ){0,40}(permission is hereby granted .* dealings in the software)",
        "0cf21bdfd1964a97a8615e128534845826afbc887edc95aa5c925cbf64386b5c",
    ),
}


@dataclass(frozen=True)
class License:
    """A licence by its SPDX identifier, or by the name that the source uses, and where that is said."""

    name: str
    said_by: str

    def as_dict(self) -> dict[str, str]:
        """JSON-ready."""
        return asdict(self)


def license_of(directory: Path) -> License | None:
    """What a checkpoint's own files say, in this order: the manifest of its compression, which has it from
    the original; the front matter of its card; a licence text.
    """
    return _from_manifest(directory / MANIFEST) or _from_card(directory / CARD) or _from_text(directory)


def named(name: object, said_by: str) -> License | None:
    """The licence that a file calls ``name``; None where that is no name of one."""
    if not isinstance(name, str) or not _NAME.fullmatch(name.strip()):
        return None
    return License(SPDX.get(name.strip().lower(), name.strip()), said_by)


def _from_manifest(path: Path) -> License | None:
    source: Any = (read_json(path) if path.is_file() else {}) or {}
    for key in ("source", "license"):
        source = source.get(key) if isinstance(source, dict) else None
    return named(source.get("name"), str(source.get("said_by"))[:200]) if isinstance(source, dict) else None


def _from_card(path: Path) -> License | None:
    # Line by line, so that no YAML of a stranger's file is parsed.
    said: dict[str, str] = {}
    for line in _text(path).partition("\n---")[0].splitlines()[1:]:
        key, _, value = line.partition(":")
        said.setdefault(key, value.strip().strip("\"'"))
    if not _text(path).startswith("---\n"):
        return None
    other = said.get("license") == "other" and said.get("license_name")
    return named(other or said.get("license"), CARD)


def _from_text(directory: Path) -> License | None:
    """The licence of the only licence text there is; of several, which holds for what is not known."""
    texts = [path for pattern in ("LICEN[CS]E*", "COPYING*") for path in directory.glob(pattern)]
    words = " ".join(re.findall(r"[a-z]+", _text(texts[0]).lower())) if len(texts) == 1 else ""
    for name, (form, digest) in _TEXTS.items():
        found = re.fullmatch(form, words)
        if found and hashlib.sha256(found[1].encode()).hexdigest() == digest:
            return License(name, texts[0].name)
    return None


def _text(path: Path) -> str:
    if not path.is_file() or path.stat().st_size > _LARGEST:
        return ""
    return path.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n")
