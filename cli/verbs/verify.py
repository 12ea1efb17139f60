"""``edgepress verify``: check every file that edgepress wrote into a directory against its manifest."""

from __future__ import annotations

from pathlib import Path

import click

from ...errors import GateFailed
from ...terminal import Terminal


@click.command("verify")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--manifest-sha256", help="The manifest must have this hash too: the one its publisher gave you."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing when all is well.")
def command(path: Path, manifest_sha256: str | None, as_json: bool, quiet: bool) -> None:
    """Hash every file of PATH: a bundle, another export (GGUF, BitNet) or a compressed checkpoint.

    Exits with 1 when anything differs.
    """
    from ...runtime.bundle.verification import verify_directory

    found = verify_directory(path)
    problems = list(found.problems)
    if manifest_sha256 is not None and manifest_sha256.lower() != found.manifest_sha256:
        problems.append(f"the manifest has SHA-256 {found.manifest_sha256}, not {manifest_sha256}")
    if problems:
        raise GateFailed(
            f"{path} is not as it was published",
            why="\n".join(f"  {problem}" for problem in problems),
            fix="copy or make it again; do not run it",
        )
    terminal = Terminal(as_json=as_json, quiet=quiet)
    text = (
        f"{path}: {found.files} files, {found.bytes / 1e6:.1f} MB, all as published\n{found.manifest_sha256}"
    )
    terminal.document(found.as_dict(), None if quiet else text)
