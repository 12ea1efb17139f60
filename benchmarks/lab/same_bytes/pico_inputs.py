"""What the pico models read: texts, images and sounds, made of fixed seeds unless they are there."""

import json
import random
import wave
from collections.abc import Sequence
from pathlib import Path

WORDS = """the river ran under old stone bridges while merchants counted copper coins and children watched
boats drift slowly toward the harbour where engineers measured tides winds currents and the weight of every
cargo loaded""".split()
LABELS = ("calm", "storm", "fog")


def sentences(count: int, seed: int) -> list[str]:
    """So many, of random words."""
    generator = random.Random(seed)
    return [" ".join(generator.choices(WORDS, k=60)) + "." for _ in range(count)]


def write_texts(folder: Path) -> None:
    """Prose, rows with labels, and chats."""
    if folder.exists():
        return
    folder.mkdir(parents=True)
    prose = sentences(120, seed=1)
    (folder / "prose.txt").write_text("\n\n".join(prose), encoding="utf-8")
    labelled = [
        {"text": text, "label": LABELS[index % 3], "other": text.upper()} for index, text in enumerate(prose)
    ]
    chats = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text[::-1]}]}
        for text in prose
    ]
    files: dict[str, Sequence[object]] = {"labelled": labelled, "chats": chats}
    for name, rows in files.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def write_images(folder: Path) -> None:
    """Of noise, each of another height."""
    if folder.exists():
        return
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True)
    generator = np.random.default_rng(1)
    for number in range(16):
        pixels = generator.integers(0, 256, (40 + number, 56, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")


def write_sounds(folder: Path) -> None:
    """Of noise, each of another length, with what is said in it."""
    if folder.exists():
        return
    import numpy as np

    folder.mkdir(parents=True)
    generator = np.random.default_rng(1)
    for number, said in enumerate(sentences(16, seed=2)):
        codes = generator.normal(0, 3000, 8000 + 900 * number).astype("<i2")
        with wave.open(str(folder / f"{number:02d}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes(codes.tobytes())
        (folder / f"{number:02d}.txt").write_text(" ".join(said.split()[:20]), encoding="utf-8")
