"""``edgepress push``: a bundle onto the Hugging Face Hub."""

from pathlib import Path

import click

from ...terminal.progress import Terminal
from ..verb import Verb, output


@click.command("push", cls=Verb)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("name", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="Make the model private where it is new.")
@output
def command(bundle: Path, name: str, private: bool, terminal: Terminal) -> None:
    """Upload BUNDLE, verified first, as the model OWNER/NAME of the hub; `hf auth login` comes before."""
    from ...runtime.hub import push

    address = push(bundle, name, private=private)
    text = f'{address}\nopen it with: edgepress.Model.from_pretrained("{name}", download=True)'
    terminal.document({"commit": address}, None if terminal.quiet else text)
