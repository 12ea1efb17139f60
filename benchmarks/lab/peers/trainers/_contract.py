"""What a trainer is asked: a student and its teacher, token sequences, and a directory for the result.

Standard library only: this file runs in every peer's environment.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Task:
    """One training: a pass over the sequences, ``rows`` of them a step.

    Attributes:
        student, teacher: Hugging Face directories with float32 safetensors and one tokenizer.
        tokens: JSON file, a list of sequences of token ids, all equally long.
        output: an empty directory, for ``checkpoint`` in it, which transformers loads.
        learning_rate: the largest, of AdamW; it falls as a cosine after a tenth of the steps.
    """

    student: Path
    teacher: Path
    tokens: Path
    output: Path
    rows: int
    learning_rate: float

    @property
    def checkpoint(self) -> Path:
        """Where the result goes."""
        return self.output / "checkpoint"

    def sequences(self) -> list[list[int]]:
        """The token sequences."""
        found: list[list[int]] = json.loads(self.tokens.read_text(encoding="utf-8"))
        return found

    def copy_companions(self) -> None:
        """The tokenizer and all other files that the tool does not write itself."""
        for file in self.student.iterdir():
            wanted = file.is_file() and file.suffix in (".json", ".jinja", ".txt")
            if wanted and not (self.checkpoint / file.name).exists() and "index" not in file.name:
                shutil.copyfile(file, self.checkpoint / file.name)
