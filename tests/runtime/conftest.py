"""Toy bundles for the runtime's tests; read-only ones are made once a session."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from edgepress.runtime.api import TextModel
from edgepress.runtime.bundle.bundle import Bundle
from runtime_toys import bundle as toy_bundle
from runtime_toys.decoder import ToyWeights


@pytest.fixture(scope="session")
def decoder_source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ToyWeights]:
    """A decoder bundle that no test changes, and its weights."""
    folder = tmp_path_factory.mktemp("toy") / "decoder"
    return folder, toy_bundle.save_decoder_bundle(folder)


@pytest.fixture(scope="session")
def decoder_bundle(decoder_source: tuple[Path, ToyWeights]) -> Path:
    """Its directory."""
    return decoder_source[0]


@pytest.fixture(scope="session")
def toy_weights(decoder_source: tuple[Path, ToyWeights]) -> ToyWeights:
    """Its weights."""
    return decoder_source[1]


@pytest.fixture(scope="session")
def encoder_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder bundle that no test changes."""
    folder = tmp_path_factory.mktemp("toy") / "encoder"
    toy_bundle.save_encoder_bundle(folder)
    return folder


@pytest.fixture
def own_bundle(decoder_bundle: Path, tmp_path: Path) -> Path:
    """A decoder bundle of the test's own, to be damaged."""
    return Path(shutil.copytree(decoder_bundle, tmp_path / "own"))


@pytest.fixture(scope="session")
def text_model(decoder_bundle: Path) -> TextModel:
    """The decoder bundle, loaded with one thread."""
    return TextModel(Bundle.open(decoder_bundle), threads=1)
