"""``Preprocessing``: how images become the numbers that a model reads, as a manifest has it.

``Sound``: what a model hears, as a manifest has it.
"""

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from .typed_json import Unusable, by_name, choice, integer, items, number, optional, text

_SIDE = integer(1, 4096)  # a longer one is no model's
_SIZE = items(_SIDE, at_least=2, at_most=2)
_CHANNELS = items(number(-1e6, 1e6), at_least=3, at_most=3)
# Pillow's filters by the numbers that configs have.
FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
_ID = integer(0, 2**31 - 1)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What is done to an image, in this order.

    Attributes:
        resize: height and width to resize to; ``shorter`` instead resizes that side and keeps the shape. None
            of both leaves the size.
        resample: one of :data:`FILTERS`.
        crop: height and width to cut out of the centre; a smaller image is filled up with black.
        scale: what values from 0 to 255 are multiplied by; None leaves them.
        mean, std: by channel, of ``(value - mean) / std``; None leaves them.
    """

    resize: Annotated[list[int] | None, optional(_SIZE)] = None
    shorter: Annotated[int | None, optional(_SIDE)] = None
    resample: Annotated[str, choice(*FILTERS)] = "bilinear"
    crop: Annotated[list[int] | None, optional(_SIZE)] = None
    scale: Annotated[float | None, optional(number(-1e6, 1e6))] = 1 / 255
    mean: Annotated[list[float] | None, optional(_CHANNELS)] = None
    std: Annotated[list[float] | None, optional(_CHANNELS)] = None

    def __post_init__(self) -> None:
        if self.size is None:
            raise ValueError("images would keep different sizes: neither resize nor crop says one")
        if (self.mean is None) != (self.std is None) or (self.std is not None and 0 in self.std):
            raise ValueError("mean and std must both be there, and no std be 0")

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of what comes out; None where that is the image's own."""
        found = self.crop or self.resize
        return None if found is None else (found[0], found[1])

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def _word(value: Any, key: str) -> str:
    found = str(text()(value, key))
    if not found.isprintable() or not 0 < len(found) <= 40:
        raise Unusable(key, "must be a short word")
    return found


@dataclass(frozen=True, kw_only=True)
class Sound:
    """Sounds of ``samples`` numbers from -1 to 1, ``rate`` a second; shorter ones have silence behind them.

    Attributes:
        languages, tasks: by their names the tokens that ask for them, which stand in front of an answer.
    """

    rate: Annotated[int, integer(1, 1 << 20)]
    samples: Annotated[int, integer(1, 1 << 26)]
    languages: Annotated[dict[str, int], by_name(_word, _ID)] = field(default_factory=dict)
    tasks: Annotated[dict[str, int], by_name(_word, _ID)] = field(default_factory=dict)
