"""Groups that do not divide the inputs of a layer: the refusal of a plan, and that of a scheme which names
its groups, for which config and headers of the model suffice: torch need not be there yet.
"""

from collections import defaultdict
from contextlib import suppress
from pathlib import Path

from ..errors import EdgepressError, ShapeError
from ..files.storage import open_regular
from .model.anatomy import Anatomy
from .model.checkpoint.header import read_header
from .model.checkpoint.policy import read_config
from .model.family import anatomy_of, stored_transposed
from .model.model_names import directory_of
from .numbers.scheme import GROUP_SIZES, Scheme


def fitting_groups(in_features: list[int]) -> list[int]:
    """Standard group sizes that divide every width in ``in_features``."""
    return [size for size in GROUP_SIZES if all(width % size == 0 for width in in_features)]


def listed(misfits: dict[int, list[str]]) -> str:
    """The layers by their number of inputs, in words."""
    return "; ".join(
        f"{len(names)} layers with {width} inputs, for example {names[0]}"
        for width, names in sorted(misfits.items())
    )


def groups_refused(what: str, misfits: dict[int, list[str]], scheme: Scheme, widths: list[int]) -> ShapeError:
    """The error for ``misfits``, layers by their number of inputs, among layers of ``widths``."""
    fits = fitting_groups(widths)
    said = f"{what}: group size {scheme.group_size} does not divide {listed(misfits)}"
    if scheme.of_gguf:
        said = f"{what}: blocks of {scheme.block} do not divide {listed(misfits)}"
        return ShapeError(said, fix="take IQ4_NL for these layers, whose blocks are of 32, or `ignore` them")
    if scheme.of_trellis:
        said = f"{what}: words of {scheme.block} columns do not divide {listed(misfits)}"
        return ShapeError(said, fix=f"take W{scheme.bits}A16-channel for these layers, or `ignore` them")
    if scheme.format != "int":
        way_out = f"{scheme.name} has no other groups: `ignore` these layers, or choose FP8_DYNAMIC"
        return ShapeError(said, fix=way_out)
    way_out = f"group sizes that fit all of them: {', '.join(map(str, fits))}; " if fits else ""
    return ShapeError(
        said,
        fix=f"{way_out}or one scale per channel (W{scheme.bits}A16-channel); a pass can also `ignore` layers",
    )


def check_scheme(model: str, scheme: Scheme) -> None:
    """Refuse ``scheme`` for ``model`` where its groups do not divide the inputs of a layer.

    A model that is still to be made, that is compressed already or that cannot be opened is left to the plan.
    """
    size = scheme.group_size
    if size is None or (anatomy := _anatomy(model)) is None:
        return
    misfits: dict[int, list[str]] = defaultdict(list)
    for linear in anatomy.linears():
        if linear.in_features % size:
            misfits[linear.in_features].append(linear.name)
    if misfits:
        raise groups_refused(scheme.name, misfits, scheme, [one.in_features for one in anatomy.linears()])


def _anatomy(model: str) -> Anatomy | None:
    """Of a model in float whose files lie in a directory; None for others, and for damaged ones."""
    directory = directory_of(model)
    if directory is None:
        return None
    with suppress(EdgepressError, OSError):
        config = read_config(directory)
        if "quantization_config" in config:
            return None
        turned = stored_transposed(config)
        return anatomy_of(
            config,
            {
                name: shape[::-1] if turned and name.endswith(turned) else shape
                for name, shape in _shapes(directory).items()
            },
        )
    return None


def _shapes(directory: Path) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(directory.glob("*.safetensors")):
        with open_regular(path) as stream:
            found |= {name: entry.shape for name, entry in read_header(stream, path).items()}
    return found
