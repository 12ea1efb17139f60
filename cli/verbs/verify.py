"""``edgepress verify``: every file that edgepress wrote into a directory, and the signature over them."""

from pathlib import Path
from typing import Any

import click

from ...errors import GateFailed
from ...files.escaping import one_line
from ...terminal.progress import Terminal
from ..verb import Verb, output


@click.command("verify", cls=Verb)
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--manifest-sha256", help="The manifest must have this hash too: the one its publisher gave you."
)
@click.option(
    "--key",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The public key (PEM) of whoever must have signed it.",
)
@click.option("--identity", help="Who must have signed it by Sigstore: a mail address, a workflow's URL.")
@click.option("--identity-provider", help="The OpenID Connect issuer that vouches for --identity: a URL.")
@output
def command(
    path: Path,
    manifest_sha256: str | None,
    key: Path | None,
    identity: str | None,
    identity_provider: str | None,
    terminal: Terminal,
) -> None:
    """Hash every file of PATH: a bundle, another export (GGUF, BitNet) or a compressed checkpoint.

    Exits with 1 when anything differs. A signature is checked when you say whose it must be: --key, or
    --identity and --identity-provider.
    """
    if (identity is None) != (identity_provider is None) or (key is not None and identity is not None):
        raise click.UsageError("a signer is --key FILE, or --identity WHO with --identity-provider URL")
    from ...runtime.bundle.verification import verify_directory

    found = verify_directory(path)
    problems = list(found.problems)
    if manifest_sha256 is not None and manifest_sha256.lower() != found.manifest_sha256:
        problems.append(f"the manifest has SHA-256 {found.manifest_sha256}, not {manifest_sha256}")
    signature = _signature(path, problems, key=key, identity=identity, provider=identity_provider)
    if problems:
        raise GateFailed(
            f"{path} is not as it was published",
            why="\n".join(f"  {one_line(problem)}" for problem in problems),
            fix="copy or make it again; do not run it",
        )
    size = f"{found.files} files, {found.bytes / 1e6:.1f} MB"
    text = f"{path}: {size}, all as published\nSHA-256 of the manifest: {found.manifest_sha256}\n{signature}"
    terminal.document(found.as_dict() | {"signature": signature}, None if terminal.quiet else text)


def _signature(path: Path, problems: list[str], *, key: Path | None, **by: Any) -> str:
    """What is known of the signature; what is wrong with one that was to be checked joins ``problems``."""
    from ...files.hashed_tree import SIGNATURE

    if key is None and by["identity"] is None:
        return "signed, not checked" if (path / SIGNATURE).is_file() else "not signed"
    from ...runtime.bundle.signature import Signer, signature_problems

    problems += signature_problems(path, Signer(key) if key is not None else Signer(None, **by))
    return f"signed by {key if key is not None else by['identity']}"
