"""``edgepress package BUNDLE… -o NAME.ortpackage``: an ONNX Runtime model package of several bundles."""

from pathlib import Path

import click

from ...terminal.progress import Terminal
from ..bundle_options import OutputDirectory
from ..verb import Verb
from ..verb import output as output_options


@click.command("package", cls=Verb)
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, type=OutputDirectory(), help="The directory to write: NAME.ortpackage."
)
@click.option("--overwrite", is_flag=True, help="Replace what an earlier run wrote, and nothing else.")
@output_options
def command(bundles: tuple[Path, ...], output: str, overwrite: bool, terminal: Terminal) -> None:
    """Copy BUNDLES, exported of one model for different providers with standard operators, into one ONNX
    Runtime model package.

    ONNX Runtime 1.32 opens the variant for the provider that a session asks for.
    """
    from ...export.model_package import write_package

    path = write_package(bundles, output=output, overwrite=overwrite)
    variants = sorted(one.name for one in path.iterdir() if one.is_dir())
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    text = f"{path}: an ONNX Runtime model package for {', '.join(variants)}, {size / 1e6:.1f} MB"
    document = {"output": str(path), "variants": variants, "bytes": size}
    terminal.document(document, None if terminal.quiet else text)
