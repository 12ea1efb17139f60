"""What sentence-transformers and transformers do to a text before a model reads it: the end that a tokenizer
adds, held against ``tokenizer.json``, whose ids are those of a bundle, and the prompts in front of a text.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..compress.model.pooling import Pooling
from ..errors import CheckpointError
from ..files.storage import is_regular, read_json
from ..runtime.text.tokenizer import Tokenizer
from ..terminal.progress import Progress

_SETTINGS, _PROMPTS = "tokenizer_config.json", "config_sentence_transformers.json"


@dataclass(frozen=True)
class Prompts:
    """By name the ``texts`` that are put in front of one, the name of the ``default``, if any, and whether
    their tokens are ``pooled`` with the others.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    default: str | None = None
    pooled: bool = True

    @property
    def left_out(self) -> bool:
        """Whether a bundle, which pools all tokens, cannot have them."""
        return not self.pooled and any(self.texts.values())

    def section(self) -> dict[str, Any]:
        """As a manifest has them; nothing where there are none."""
        if not self.texts or self.left_out:
            return {}
        return {"prompts": dict(self.texts), "default_prompt": self.default}

    def in_front(self) -> list[str]:
        """What a text may have in front, nothing among it."""
        return ["", *dict.fromkeys(text for text in self.texts.values() if text)]

    def check_pooled(self, directory: Path, progress: Progress) -> None:
        """Say that a bundle of the model in ``directory`` gets no prompts, where that is so."""
        if not self.left_out:
            return
        if self.default is not None and self.texts[self.default]:
            raise CheckpointError(
                f"{directory} reads a prompt in front of every text, whose tokens its pooling leaves out",
                why="a bundle pools all tokens of a text, against include_prompt: false of the pooling",
                fix="set default_prompt_name to null in a copy of it, if vectors without a prompt will do",
            )
        progress.note(
            f"the bundle gets no prompts ({', '.join(self.texts)}): the pooling leaves their tokens out "
            "(include_prompt: false), and a bundle pools all"
        )


def check_texts(directory: Path) -> None:
    """Refuse a tokenizer whose end of a text is not in its file."""
    if _read(directory / _SETTINGS).get("add_eos_token") is True:
        tokenizer = Tokenizer.open(directory)
        if tokenizer.encode("a")[-1] not in tokenizer.eos_ids:
            raise CheckpointError(
                f"{directory / _SETTINGS} sets add_eos_token, and tokenizer.json ends no text",
                why="transformers adds the end as it opens the tokenizer; a bundle has tokenizer.json alone",
                fix="write the end into it: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)",
            )


def prompts_of(directory: Path, pooling: Pooling) -> Prompts:
    """The prompts of the model in ``directory``, whose ``pooling`` says whether they are pooled."""
    file = directory / _PROMPTS
    content = _read(file)
    texts, default = content.get("prompts") or {}, content.get("default_prompt_name")
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise CheckpointError(f"{file}: prompts must be texts by name, not {texts!r:.80}")
    if default is not None and default not in texts:
        raise CheckpointError(
            f"{file}: default_prompt_name is {default!r:.80}, which is none of its prompts",
            fix=f"name one of them, or null: {', '.join(map(repr, texts)) or 'there are none'}",
        )
    return Prompts(texts, default, pooling.include_prompt)


def _read(file: Path) -> dict[str, Any]:
    content = read_json(file) if is_regular(file) else {}
    return content if isinstance(content, dict) else {}
