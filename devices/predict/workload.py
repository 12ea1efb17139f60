"""What a model is predicted to do, and the same limits that hold when it is measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ...errors import InputError
from .subject import Subject


@dataclass(frozen=True)
class PredictedWork:
    """As ``profile`` measures: a prompt and new tokens of a decoder; of an encoder ``batch`` sentences of
    ``prompt_tokens``.
    """

    prompt_tokens: int = 128
    new_tokens: int = 128
    batch: int = 32

    def check(self, subject: Subject) -> None:
        """Refuse what does not fit the model.

        Raises:
            InputError: more tokens than its context.
        """
        total = self.prompt_tokens + (self.new_tokens if subject.kind == "decoder" else 0)
        if total > subject.context or self.new_tokens < 2:
            raise InputError(
                f"{total} tokens with {self.new_tokens} new ones do not fit {subject.name}",
                why=f"its context is {subject.context}, and two new tokens are the least",
                fix="change --prompt-tokens or --max-new-tokens",
            )

    def options(self, subject: Subject) -> str:
        """The words of a command line that asks for it."""
        words = [f"--prompt-tokens {self.prompt_tokens}"]
        words += [f"--max-new-tokens {self.new_tokens}"] if subject.kind == "decoder" else []
        words += [f"--batch-size {self.batch}"] if subject.kind != "decoder" else []
        return " ".join(words)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)
