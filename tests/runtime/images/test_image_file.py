"""Image files: what a model may be shown, and what is refused before it is decoded."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from edgepress.errors import InputError, MissingDependency
from edgepress.runtime.images import image_file
from edgepress.runtime.images.image_file import MOST_PIXELS, image_files, open_image

Image = pytest.importorskip("PIL.Image")


def png(width: int, height: int) -> bytes:
    """The head of a PNG file that says these sizes, and a little data."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("RGB", "png"),
        ("L", "png"),
        ("1", "png"),
        ("P", "gif"),
        ("CMYK", "jpg"),
        ("RGB", "webp"),
        ("I;16", "png"),
    ],
)
def test_every_mode_becomes_red_green_and_blue(mode: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.new(mode, (7, 5)).save(path)
    found = open_image(path)
    assert (found.mode, found.size) == ("RGB", (7, 5))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_what_is_transparent_lies_on_white(mode: str, tmp_path: Path) -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (10, 20, 30, 255))
    path = tmp_path / ("image.png" if mode != "PA" else "image.gif")
    (image.convert(mode) if mode == "LA" else image).save(path)
    pixels = np.asarray(open_image(path))
    assert pixels[0, 0].tolist() == [255, 255, 255] and pixels[0, 1].max() < 60


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (4, 4), colour) for colour in ("white", "black"))
    first.save(tmp_path / "two.gif", save_all=True, append_images=[second])
    assert np.asarray(open_image(tmp_path / "two.gif")).min() == 255


def truncated(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "PNG")
    path.write_bytes(path.read_bytes()[:2000])


def postscript(path: Path) -> None:
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")


def a_bomb_of_text(path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("comment", "a" * (8 << 20), zip=True)
    Image.new("RGB", (2, 2)).save(path, pnginfo=info)


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (truncated, "no image that can be read"),
    "text": (lambda path: path.write_text("a photo"), "no image that can be read"),
    "empty": (lambda path: path.write_bytes(b""), "no image that can be read"),
    "postscript": (postscript, "no image that can be read"),
    "compressed text": (a_bomb_of_text, "no image that can be read"),
    "many pixels": (lambda path: path.write_bytes(png(10_000, 10_000)), "more than 50 million"),
    "a bomb": (lambda path: path.write_bytes(png(1 << 30, 1 << 30)), "no image that can be read|more than"),
    "no pixels": (lambda path: path.write_bytes(png(0, 5)), "no image that can be read|pixels"),
    "a directory": (Path.mkdir, "cannot read"),
    "a pipe": (os.mkfifo, "cannot read"),
    "absent": (lambda path: None, "cannot read"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_no_image_is_a_typed_error(kind: str, tmp_path: Path) -> None:
    make, message = HOSTILE[kind]
    make(tmp_path / "image.png")
    with pytest.raises(InputError, match=message):
        open_image(tmp_path / "image.png")


def test_the_limit_is_of_pixels_and_of_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image.bmp"
    Image.new("RGB", (100, 50)).save(path)
    assert MOST_PIXELS > 100 * 50 and open_image(path).size == (100, 50)
    monkeypatch.setattr(image_file, "MOST_BYTES", 1000)
    with pytest.raises(InputError, match="more than any image"):
        open_image(path)


def test_without_pillow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"edgepress\[images\]"):
        open_image("photo.png")


def test_the_images_of_a_folder_and_those_below_it(pico_images: list[Path], tmp_path: Path) -> None:
    assert image_files(pico_images[0].parent) == pico_images
    assert image_files(pico_images[3]) == [pico_images[3]]
    (tmp_path / "notes.txt").write_text("none here")
    with pytest.raises(InputError, match="holds no images"):
        image_files(tmp_path)
    with pytest.raises(InputError, match="no image or directory"):
        image_files(tmp_path / "absent")
