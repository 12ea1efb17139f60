"""``edgepress sign``: a signature over every file of a bundle or checkpoint, the manifest included."""

import shlex
from pathlib import Path

import click

from ...terminal.progress import Terminal
from ..verb import Verb, output


@click.command("sign", cls=Verb)
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--key",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A private elliptic-curve key (PEM: P-256, P-384 or P-521). EDGEPRESS_KEY_PASSWORD opens an "
    "encrypted one.",
)
@click.option("--sigstore", is_flag=True, help="Sign with your identity by Sigstore; this needs the network.")
@click.option("--overwrite", is_flag=True, help="Replace an existing signature.")
@output
def command(path: Path, key: Path | None, sigstore: bool, overwrite: bool, terminal: Terminal) -> None:
    """Sign the bundle or compressed checkpoint PATH in the OpenSSF form: its file model.sig."""
    if (key is None) == (not sigstore):
        raise click.UsageError("give either --key FILE or --sigstore: whose signature shall it be?")
    from ...runtime.bundle.signature import sign_directory

    signature = sign_directory(path, key, overwrite=overwrite)
    check = "--identity YOU --identity-provider URL" if key is None else "--key PUBLIC.pem"
    text = f"{signature}\ncheck it with: edgepress verify {shlex.quote(str(path))} {check}"
    terminal.document({"signature": str(signature)}, None if terminal.quiet else text)
