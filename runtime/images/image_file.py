"""An image file as pixels, with what is no image, or is too large to be one, refused before it is decoded.

Pillow decodes, from the extra ``images``. It is asked for the formats below and no other: among those that it
knows are some that run programs (EPS) and many that nobody sends. An image is red, green and blue when it
leaves; transparency lies on white, as transformers lays it.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import InputError, require
from ...files.storage import read_at_most
from ...files.third_party_errors import third_party_errors_are_typed

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"})
MOST_BYTES = 64 << 20
# 48 megapixels, the largest of a telephone's camera, decode to 192 MB.
MOST_PIXELS = 50_000_000
_WHITE = (255, 255, 255, 255)


def open_image(path: Path | str) -> Image:
    """The image in the file ``path``, decoded, in the mode RGB; of an animation its first frame."""
    require("PIL", "images")
    from PIL import Image

    data = read_at_most(Path(path), MOST_BYTES, "image")
    with (
        third_party_errors_are_typed(lambda why: _unreadable(path, why)),
        Image.open(BytesIO(data), formats=FORMATS) as image,
    ):
        width, height = image.size
        if not 0 < width * height <= MOST_PIXELS:
            raise InputError(
                f"{path} is an image of {width} × {height} pixels, more than {MOST_PIXELS // 10**6} million",
                why="decoded it would take more memory than any model needs of an image",
                fix="make it smaller first: a model reads a few hundred pixels to a side",
            )
        image.load()
        return _on_white(image)


def image_files(path: Path) -> list[Path]:
    """The image files in the directory ``path`` and those below it, by name; of a file itself."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"there is no image or directory of images at {path}", fix="check the path")
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not found:
        raise InputError(
            f"the directory {path} holds no images",
            fix=f"give one with files that end in {', '.join(sorted(SUFFIXES))}",
        )
    return found


def _unreadable(path: Path | str, why: str) -> InputError:
    return InputError(
        f"{path} is no image that can be read",
        why=why,
        fix=f"give a whole file in one of these formats: {', '.join(FORMATS)}",
    )


def _on_white(image: Image) -> Image:
    """``image`` in red, green and blue."""
    from PIL import Image as pillow

    if "A" not in image.getbands() and image.info.get("transparency") is None:
        return image.convert("RGB")
    clear = image.convert("RGBA")
    return pillow.alpha_composite(pillow.new("RGBA", clear.size, _WHITE), clear).convert("RGB")
