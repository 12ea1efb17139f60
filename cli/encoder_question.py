"""``EncoderQuestion``: what the verbs that ask an encoder's bundle about texts or images share: their
options, and the model, opened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import click

from ..errors import InputError
from ..terminal.progress import Progress, Terminal
from . import bundle_options
from .verb import output

if TYPE_CHECKING:
    from ..runtime.engine.encoder import EncoderModel
    from ..runtime.engine.image_encoder import ImageModel

    Model = TypeVar("Model", bound=EncoderModel)

# Texts beyond which there is a bar.
MANY = 64
SHOWN = 60  # characters of a text in a table

bundle = click.argument("bundle", type=click.Path(path_type=Path))


class Reading(TypedDict):
    """How texts are read: the keyword arguments of a model's methods."""

    batch_size: int
    progress: Progress | None


@dataclass(frozen=True)
class EncoderQuestion:
    """``lines`` about which ``bundle`` is asked, and how the user wants it; ``file`` has the last of them.
    Where ``images`` is set they are the paths of image files.
    """

    bundle: Path
    lines: list[str]
    file: Path | None
    batch_size: int
    threads: int | None
    provider: str
    terminal: Terminal
    images: bool = False

    def images_opened(self) -> ImageModel:
        """The bundle as a model of images; raises as :meth:`opened`."""
        from ..runtime.bundle.bundle import Bundle
        from ..runtime.engine.image_encoder import ImageModel

        opened = Bundle.open(self.bundle, weights_later=True)
        model = ImageModel(opened, threads=self.threads, provider=self.provider)
        if model.session.misplaced:
            self.terminal.say(f"WARNING: {model.session.misplaced}")
        return model

    def opened(self, kind: type[Model]) -> Model:
        """The bundle as a ``kind`` of model; a provider that does not run all of it is said."""
        from ..runtime.bundle.bundle import Bundle

        opened = Bundle.open(self.bundle, weights_later=True)
        model = kind(opened, threads=self.threads, provider=self.provider)
        if model.encoder.session.misplaced:
            self.terminal.say(f"WARNING: {model.encoder.session.misplaced}")
        return model

    def reading(self, many: int = MANY) -> Reading:
        """With a bar for more than ``many`` texts."""
        progress = self.terminal.progress if len(self.lines) > many else None
        return {"batch_size": self.batch_size, "progress": progress}


def asks(action: str, *, images: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A verb that gets an :class:`EncoderQuestion` of what its arguments TEXTS and its options say, and whose
    BUNDLE is an argument; ``action`` is what it does to texts, for where there are none. It may take
    ``images`` in their place.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @click.argument("texts", nargs=-1)
        @bundle_options.text_file
        @bundle_options.batch_size
        @bundle_options.session
        @output
        @wraps(command)
        def asked(
            bundle: Path,
            texts: tuple[str, ...],
            file: Path | None,
            terminal: Terminal,
            shown: tuple[str, ...] = (),
            **others: Any,
        ) -> None:
            if shown and (texts or file is not None):
                raise InputError(
                    "texts are given beside images", fix=f"{action} texts with a bundle that reads text"
                )
            lines = list(shown) or bundle_options.given_texts(texts, file, action, images=images)
            own = {name: value for name, value in others.items() if name not in _OPENING}
            opening = {name: others[name] for name in _OPENING}
            opening["images"] = bool(shown)
            command(EncoderQuestion(bundle, lines, file, terminal=terminal, **opening), **own)

        return bundle_options.image(asked) if images else asked

    return decorate


_OPENING = ("batch_size", "threads", "provider")


def shortened(text: str) -> str:
    """``text`` as a table shows it."""
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
