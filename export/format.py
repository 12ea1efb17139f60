"""``ExportFormat``: what every file of ``formats/`` defines, and the one way in which ``api`` drives it.

First ``prepare``, before anything is written; then ``write``; then ``check``, unless the user goes without
proof. The output is staged and published whole after that, or not at all.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from .job import ExportJob

# A bundle is what our own runtime reads; ``saved`` is a model that another runtime loads by itself.
OutputKind = Literal["bundle", "saved"]


@dataclass(frozen=True)
class Prepared:
    """What is known of an export before it is written.

    Attributes:
        disk_bytes: room that writing and checking need.
    """

    disk_bytes: int


@dataclass(frozen=True)
class OpenedBy:
    """Who opens a saved model, for its card.

    Attributes:
        library: as model hubs call it.
        how: Markdown: the way to run the model in its directory.
    """

    library: str
    how: str


P = TypeVar("P", bound=Prepared)


class ExportFormat(Protocol[P]):
    """One export format, the constant ``FORMAT`` of its file.

    A file may hand a richer :class:`Prepared` from ``prepare`` on to the other two.
    """

    @property
    def kind(self) -> OutputKind:
        """Whose manifest the output has. ``api`` adds tokenizer and config to a bundle; of a saved model
        ``write`` leaves every file but licences, card and manifest.
        """

    @property
    def graph(self) -> bool:
        """Whether it is an ONNX graph, which says how its products take activations."""

    @property
    def encoder_decoders(self) -> bool:
        """Whether it is written of those, too."""

    def opened_by(self, job: ExportJob) -> OpenedBy | None:
        """The other runtime that opens a saved model; None for a bundle."""

    def prepare(self, job: ExportJob, *, validate: bool) -> P:
        """Find out whether the model can be expressed, before anything is written.

        Raises:
            EdgepressError: it cannot, as one of the typed errors.
        """

    def write(self, job: ExportJob, prepared: P, directory: Path) -> dict[str, Any]:
        """Write the files into the empty ``directory``; returns the manifest's sections about them. ``graph``
        with its ``notes`` for the user is one of them; a bundle also has ``weights`` and ``decoder`` or
        ``encoder``.

        Raises:
            OutOfResource: the disk is full.
            ShapeError: weights that the format cannot hold.
        """

    def check(
        self, job: ExportJob, prepared: P, directory: Path, sections: dict[str, Any], work: Path
    ) -> dict[str, Any]:
        """Prove what was written; returns the manifest's ``parity``. ``work`` is a path for scratch files.

        Raises:
            GateFailed: it is not what the checkpoint holds, and nothing is published.
        """


def read_back() -> dict[str, Any]:
    """``parity`` of weights that the format's own readers read as the checkpoint has them, bit by bit."""
    return {"status": "passed", "float": {"max_abs_difference": 0.0, "bound": 0.0}}
