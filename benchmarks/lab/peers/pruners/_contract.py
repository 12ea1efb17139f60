"""What a pruner is asked: a checkpoint, calibration tokens, and a directory for the result.

Standard library only: this file runs in every peer's environment.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Task:
    """One pruning.

    Attributes:
        checkpoint: a Hugging Face directory with float32 safetensors and a tokenizer.
        calibration: JSON file, a list of sequences of token ids.
        output: an empty directory, for a checkpoint that transformers loads.
    """

    checkpoint: Path
    calibration: Path
    output: Path

    def tokens(self) -> list[list[int]]:
        """The calibration sequences."""
        found: list[list[int]] = json.loads(self.calibration.read_text(encoding="utf-8"))
        return found

    def copy_companions(self) -> None:
        """The tokenizer and all other files that the tool does not write itself."""
        for file in self.checkpoint.iterdir():
            wanted = file.is_file() and file.suffix in (".json", ".jinja", ".txt")
            if wanted and not (self.output / file.name).exists():
                shutil.copyfile(file, self.output / file.name)
        for folder in self.checkpoint.glob("1_*"):  # the pooling of sentence-transformers
            shutil.copytree(folder, self.output / folder.name, dirs_exist_ok=True)
