"""What stands in front of an answer, as generation settings say it; transformers' own reading of them is held
against it in ``tests/export/test_speech.py``.
"""

from pathlib import Path
from typing import Any

import pytest
from edgepress.compress.model.hearing.speech_prompt import SpeechPrompt, speech_prompt
from edgepress.errors import CheckpointError
from edgepress.files.storage import write_json

LANGUAGES = {"<|en|>": 40, "<|de|>": 41}
TASKS = {"transcribe": 51, "translate": 50}
KNOWN = {"lang_to_id": LANGUAGES, "task_to_id": TASKS, "no_timestamps_token_id": 60}


def prompt(folder: Path, settings: Any, config: dict[str, Any] | None = None) -> SpeechPrompt:
    if settings is not None:
        write_json(folder / "generation_config.json", settings)
    return speech_prompt(folder, config or {}, 100)


@pytest.mark.parametrize(
    ("settings", "places", "usual"),
    [
        ({}, [], []),
        ({"no_timestamps_token_id": 60}, [(60,)], [60]),
        (KNOWN, [(40, 41), (60,)], [40, 60]),
        ({**KNOWN, "forced_decoder_ids": [[1, None], [2, 51]]}, [(40, 41), (51,), (60,)], [40, 51, 60]),
        ({**KNOWN, "forced_decoder_ids": [[1, 41], [2, 50], [3, 60]]}, [(41,), (50,), (60,)], [41, 50, 60]),
        ({**KNOWN, "task": "translate"}, [(40, 41), (50,), (60,)], [40, 50, 60]),
        ({**KNOWN, "language": "German"}, [(41,), (51,), (60,)], [41, 51, 60]),
        ({**KNOWN, "language": "<|de|>", "task": "translate"}, [(41,), (50,), (60,)], [41, 50, 60]),
        ({"lang_to_id": {"<|de|>": 41, "<|fr|>": 39}}, [(39, 41)], [39]),
    ],
)
def test_the_places_behind_the_start(settings: Any, places: Any, usual: list[int], tmp_path: Path) -> None:
    found = prompt(tmp_path, settings)
    assert list(found.places) == places
    assert found.usual() == usual


def test_the_config_says_it_where_there_are_no_settings(tmp_path: Path) -> None:
    config = {
        "forced_decoder_ids": [[1, 41]],
        "suppress_tokens": [3, 2, 3, 999],
        "begin_suppress_tokens": [5],
    }
    found = prompt(tmp_path, None, config)
    assert (found.places, found.never, found.never_first) == (((41,),), (2, 3), (5,))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lang_to_id": {"<|en|>": 100}}, "none of the 100 tokens"),
        ({"lang_to_id": {"<|en|>": "x"}}, "none of the 100 tokens"),
        ({"lang_to_id": [3]}, "table of tokens"),
        ({"task_to_id": 3}, "table of tokens"),
        ({"language": ["de"]}, "must be a text"),
        ({"language": "klingon"}, "klingon"),
        ({"task": "sing"}, "sing"),
        ({"return_timestamps": True}, "asks for times"),
        ({"no_timestamps_token_id": -1}, "none of the 100 tokens"),
        ({"forced_decoder_ids": 3}, "list of places"),
        ({"forced_decoder_ids": [[1]]}, "list of places"),
        ({"forced_decoder_ids": [[2, 3]]}, "from 1"),
        ({"forced_decoder_ids": [[1, True]]}, "none of the 100 tokens"),
    ],
)
def test_settings_that_make_no_sense_are_named(change: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=named):
        prompt(tmp_path, {**KNOWN, **change})
