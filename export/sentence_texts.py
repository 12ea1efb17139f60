"""What sentence-transformers and transformers do to a text before a model reads it, held against what a
bundle does: its ids are those of ``tokenizer.json``, and nothing is put in front of a text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..runtime.text.tokenizer import Tokenizer
from ..storage import is_regular, read_json
from ..terminal import Progress

_SETTINGS, _PROMPTS = "tokenizer_config.json", "config_sentence_transformers.json"


def check_texts(directory: Path, progress: Progress) -> None:
    """Refuse a tokenizer whose end of a text is not in its file, and note a prompt that others put in front.

    Raises:
        CheckpointError: the settings ask for an end that ``tokenizer.json`` does not add.
    """
    if _read(directory / _SETTINGS).get("add_eos_token") is True:
        tokenizer = Tokenizer.open(directory)
        if tokenizer.encode("a")[-1] not in tokenizer.eos_ids:
            raise CheckpointError(
                f"{directory / _SETTINGS} sets add_eos_token, and tokenizer.json ends no text",
                why="transformers adds the end as it opens the tokenizer; a bundle has tokenizer.json alone",
                fix="write the end into it: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)",
            )
    content = _read(directory / _PROMPTS)
    prompts, name = content.get("prompts"), content.get("default_prompt_name")
    if isinstance(prompts, dict) and isinstance(name, str) and prompts.get(name):
        progress.note(
            f"sentence-transformers puts its prompt {name!r} in front of every text; a bundle does not: put "
            f"{str(prompts[name])[:200]!r} there for the same vectors"
        )


def _read(file: Path) -> dict[str, Any]:
    content = read_json(file) if is_regular(file) else {}
    return content if isinstance(content, dict) else {}
