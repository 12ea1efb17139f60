"""What the teacher says about each piece, on disk: it runs once and need not stay in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ...terminal import Progress
from ..torch_model import load_model
from .objective import Answers, Objective, ask
from .pieces import Piece


class Teacher:
    """The answers of the model at ``path``, kept in ``directory``, which belongs to one run."""

    def __init__(self, path: Path, directory: Path, objective: Objective, device: torch.device) -> None:
        self.path, self.directory, self.objective, self.device = path, directory, objective, device

    def _file(self, piece: Piece) -> Path:
        return self.directory / f"{piece.number:05d}.safetensors"

    def prepare(self, pieces: Sequence[Piece], progress: Progress) -> None:
        """Ask about the pieces that have no answer yet."""
        missing = [piece for piece in pieces if not self._file(piece).exists()]
        if not missing:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        model = load_model(self.path, device=self.device)
        with progress.task("asking the original", len(missing)) as task:
            for piece in missing:
                partial = self._file(piece).with_suffix(".partial")
                save_file(ask(self.objective, model, piece, self.device), partial)
                partial.rename(self._file(piece))
                task.advance(1)

    def answers(self, piece: Piece) -> Answers:
        """What was said about ``piece``: tensors with one row a token."""
        answers: Answers = load_file(self._file(piece))
        return answers
