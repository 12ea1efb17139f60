"""Token ids that a model's settings name for what it writes: its beginning, its end, and what never comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import CheckpointError
from ...files.storage import read_json
from .weights import WeightSource

_GENERATION = "generation_config.json"


@dataclass(frozen=True)
class GenerationTokens:
    """Token ids in a model's generation settings, or else in its config: the ``places`` in that order."""

    places: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, source: WeightSource) -> GenerationTokens:
        """Those of the checkpoint ``source``."""
        file = source.reader.path / _GENERATION
        settings = read_json(file) if file.is_file() else {}
        return cls((settings if isinstance(settings, dict) else {}, source.reader.config))

    def ids(self, key: str) -> list[int]:
        """Those under ``key``, one or several."""
        for place in self.places:
            value = place.get(key)
            found = [item for item in (value if isinstance(value, list) else [value]) if type(item) is int]
            if found:
                return [item for item in found if item >= 0]
        return []

    def one(self, key: str) -> int | None:
        """The first of them, or None."""
        return next(iter(self.ids(key)), None)

    def start(self) -> int:
        """What the answers of an encoder–decoder begin with."""
        starts = [*self.ids("decoder_start_token_id"), *self.ids("bos_token_id")]
        if not starts:
            raise _no_start()
        return starts[0]

    def never(self) -> list[int]:
        """Tokens that are not written; of words of several tokens none is kept from being written."""
        lists = [place.get("bad_words_ids") or [] for place in self.places]
        words = next((found for found in lists if isinstance(found, list) and found), [])
        alone = [word[0] for word in words if isinstance(word, list) and len(word) == 1]
        return sorted({token for token in [*self.ids("suppress_tokens"), *alone] if type(token) is int})


def start_token(model: Any) -> int:
    """What the answers of transformers' ``model``, an encoder–decoder, begin with."""
    settings = model.generation_config
    start = settings.decoder_start_token_id
    start = settings.bos_token_id if start is None else start
    if not isinstance(start, int):
        raise _no_start()
    return start


def _no_start() -> CheckpointError:
    return CheckpointError(
        "nothing says which token the answers of an encoder–decoder begin with",
        fix="set decoder_start_token_id in config.json, or in generation_config.json where there is one",
    )
