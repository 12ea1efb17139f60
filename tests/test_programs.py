"""What `make test` says of programs that are missing."""

from __future__ import annotations

import pytest

from . import programs


def having(monkeypatch: pytest.MonkeyPatch, *here: str) -> None:
    monkeypatch.setattr(programs.shutil, "which", lambda name, path=None: name if name in here else None)


ALL = ("sshd", "ssh", "zsh", "fish", "chromium-browser", "qemu-x86_64-static")


@pytest.mark.parametrize(
    ("here", "said"),
    [
        (("apt-get", *ALL), ""),
        (("apt-get", *ALL[1:5]), "apt-get install openssh-server qemu-user"),
        (("brew",), "brew install fish chromium"),
        (ALL[:4], "package manager chromium qemu-user"),
    ],
)
def test_the_line_names_what_is_missing_and_installs_it(
    here: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    having(monkeypatch, *here)
    assert programs.line().endswith(said) and bool(programs.line()) == bool(said)
