"""Bundles that this machine's processor made answer on another one as they do here.

``python -m tests.processors.opened_bundles FOLDER`` makes them, of every scheme and both forms, with what
torch answers while activations are not rounded, and how far from that the bundle is on this processor. As
tests, in a process that may be emulated and imports no torch, they must be no farther: saturation is.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.engine.decoder import Decoder
from edgepress.runtime.engine.encoder import Encoder
from edgepress.runtime.engine.encoder_decoder import EncoderDecoder
from edgepress.runtime.kernels.library import library

FOLDER = Path("build/processors/bundles")
ROUNDED = (
    "W8A8",
    "W8A16-g32",
    "W6A16-g32",
    "W5A16-g32",
    "W4A16-g32",
    "W4A16_ASYM-g32",
    "W3A16-g32",
    "W2A16-g32",
)
# ALBERT's blocks share their weights.
SCHEMES: dict[str, tuple[str | None, ...]] = {
    "llama": (None, *ROUNDED),
    "bert": (None, *ROUNDED),
    "albert": ("W8A8", "W4A16-g32"),
    "t5": ("W8A8", "W4A16-g32"),
}
CASES = [
    f"{family}-{scheme or 'float'}-{operators}"
    for family, schemes in SCHEMES.items()
    for scheme in schemes
    for operators in ("standard", "edgepress")
]
LENGTH = 40
IDS = np.random.default_rng(5).integers(5, 24, (2, LENGTH), dtype=np.int64)
WRITTEN = (0, 7, 11, 5, 13, 6)
# Sums of at most 256 numbers of unit size, in another order: 256 · eps.
ORDER = 256 * float(np.finfo(np.float32).eps)
# Another order of the sums lets some codes of activations fall the other way: the noise is drawn once more.
DRAWN = 1.25


def answer(folder: Path) -> Any:
    """Logits or states of ``IDS`` by the bundle in ``folder``."""
    bundle = Bundle.open(folder)
    if bundle.manifest["kind"] == "decoder":
        return Decoder.open(bundle, threads=1).logits(IDS)
    if bundle.manifest["kind"] == "encoder":
        (states,) = Encoder.open(bundle, threads=1).forward(IDS, np.ones_like(IDS)).values()
        return states
    model = EncoderDecoder.open(bundle, threads=1)
    model.prefill([row.tolist() for row in IDS])
    return np.stack([model.step([token, token]) for token in WRITTEN], axis=1)


def distance(found: Any, want: Any) -> float:
    """The root of the mean squared difference, of numbers of unit size."""
    return float(np.sqrt(np.square(found - want).mean() / np.square(want).mean()))


@pytest.mark.parametrize("case", CASES)
def test_a_bundle_is_as_near_to_torch_as_where_it_was_made(case: str) -> None:
    if case.endswith("edgepress") and library() is None:
        pytest.skip("the library of operators was not built for this processor")
    with np.load(FOLDER / f"{case}.npz") as known:
        want, here = known["want"], float(known["here"])
    assert distance(answer(FOLDER / case), want) <= DRAWN * here + ORDER


def exact_answer(family: str, checkpoint: Path) -> Any:
    """What torch answers with the stored weights, and activations as they are."""
    import torch
    from edgepress.compress.model.torch_model import load_model

    model: Any = load_model(checkpoint, embedding=True, activations=False)
    ids = torch.from_numpy(IDS)
    with torch.no_grad():
        if family == "llama":
            return model(ids, use_cache=False).logits.numpy()
        if family == "t5":
            written = torch.tensor([WRITTEN] * len(IDS))
            return model(ids, decoder_input_ids=written).logits.numpy()
        return model(ids, attention_mask=torch.ones_like(ids))[0].numpy()


def make(folder: Path) -> None:
    """Every case, and what the tests ask about it."""
    from edgepress.compress.api import compress_model
    from edgepress.export.api import export_bundle

    from ..conftest import save_decoder, save_encoder, save_encoder_decoder

    saves: dict[str, Any] = {"llama": save_decoder, "t5": save_encoder_decoder}
    for family, schemes in SCHEMES.items():
        model = saves.get(family, save_encoder)(folder / family, family)
        for scheme in schemes:
            made = folder / f"{family}-{scheme or 'float'}"
            checkpoint = compress_model(str(model), scheme=scheme, output=made) if scheme else model
            want = exact_answer(family, checkpoint)
            for operators in ("standard", "edgepress"):
                case = f"{made.name}-{operators}"
                bundle = export_bundle(checkpoint, output=folder / case, operators=operators, validate=False)
                np.savez(folder / f"{case}.npz", want=want, here=distance(answer(bundle), want))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
