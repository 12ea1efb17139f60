"""What a model is predicted to do, and the same limits that hold when it is measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ...errors import InputError
from .subject import Subject

# What an encoder gets through in a second, by what it reads.
RATES = {"text": "sentences_per_second", "image": "images_per_second"}


@dataclass(frozen=True)
class PredictedWork:
    """As ``profile`` measures: a prompt and new tokens of a decoder; of an encoder ``batch`` sentences of
    ``prompt_tokens``.
    """

    prompt_tokens: int = 128
    new_tokens: int = 128
    batch: int = 32

    def check(self, subject: Subject) -> None:
        """Refuse what does not fit the model."""
        if subject.unit == "image":
            return
        if subject.kind == "encoder_decoder":
            self._check_answer(subject)
            return
        total = self.prompt_tokens + (self.new_tokens if subject.kind == "decoder" else 0)
        if total > subject.context or self.new_tokens < 2:
            raise InputError(
                f"{total} tokens with {self.new_tokens} new ones do not fit {subject.name}",
                why=f"its context is {subject.context}, and two new tokens are the least",
                fix="change --prompt-tokens or --max-new-tokens",
            )

    def _check_answer(self, subject: Subject) -> None:
        total = subject.begins + self.new_tokens - 1
        if total > subject.context or self.new_tokens < 2:
            raise InputError(
                f"an answer of {self.new_tokens} tokens does not fit {subject.name}",
                why=f"it writes 2 to {subject.context - subject.begins + 1}",
                fix="change --max-new-tokens",
            )
        if subject.most_read and self.prompt_tokens > subject.most_read:
            raise InputError(
                f"a text of {self.prompt_tokens} tokens does not fit {subject.name}",
                why=f"it reads {subject.most_read}",
                fix="lower --prompt-tokens",
            )

    def read(self, subject: Subject) -> int:
        """Tokens that each text, image or sound is."""
        return subject.length or self.prompt_tokens

    def options(self, subject: Subject) -> str:
        """The words of a command line that asks for it."""
        named = {
            "prompt_tokens": "--prompt-tokens",
            "new_tokens": "--max-new-tokens",
            "batch": "--batch-size",
        }
        return " ".join(f"{named[name]} {value}" for name, value in self._used(subject).items())

    def as_dict(self, subject: Subject) -> dict[str, Any]:
        """JSON-ready: what texts take, and of images and sounds what counts."""
        return asdict(self) if subject.unit == "text" else self._used(subject)

    def _used(self, subject: Subject) -> dict[str, Any]:
        unused = {"batch"} if subject.kind != "encoder" else {"new_tokens"}
        unused |= set() if subject.unit == "text" else {"prompt_tokens"}
        return {name: value for name, value in asdict(self).items() if name not in unused}
