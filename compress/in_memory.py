"""``edgepress.compress(model, tokenizer)``: a model of transformers in memory in, one of its class out."""

import re
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from ..errors import InputError
from .api import compress_model


class InMemory:
    """The compressed checkpoint behind a model, in a directory that goes with the model.

    What transformers would write of a quantized model is another form of it; what is saved is this.
    """

    def __init__(self, name: str) -> None:
        directory = Path(tempfile.mkdtemp(prefix="edgepress-"))
        weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
        self.given = directory / (re.sub(r"[^\w.-]", "-", Path(name).name) or "model")
        self.checkpoint = directory / "checkpoint of edgepress"

    def save_pretrained(self, directory: str | Path, **_: Any) -> None:
        """Copy the checkpoint to ``directory``, which :meth:`from_pretrained` of its class opens."""
        shutil.copytree(self.checkpoint, directory, dirs_exist_ok=True)

    def export(self, output: str | Path, **options: Any) -> Any:
        """Write the bundle ``output``; ``options`` as :func:`edgepress.export_bundle`."""
        from .. import export_bundle  # the floor above: the caller has edgepress whole

        return export_bundle(self.checkpoint, output=output, **options)


def compress_in_memory(model: Any, tokenizer: Any = None, **options: Any) -> Any:
    """Compress ``model``, as transformers made it, and open the result with the model's own class.

    Its ``save_pretrained(directory)`` writes the compressed checkpoint, its ``export(output)`` a bundle.

    Args:
        model: a ``transformers.PreTrainedModel``; it is left as it is.
        tokenizer: the model's, without which it can neither be calibrated nor exported.
        options: as :func:`edgepress.compress_model`: ``scheme`` or ``recipe``, ``calibration`` and others.

    Raises:
        EdgepressError: as :func:`edgepress.compress_model`.
        InputError: the model cannot be saved, or transformers cannot open what became of it.
    """
    if not hasattr(model, "save_pretrained") or not hasattr(type(model), "from_pretrained"):
        raise InputError(
            f"a {type(model).__name__} is no model of transformers",
            fix="give a model that from_pretrained made, or the path of its directory to compress_model",
        )
    if "output" in options:
        raise InputError("output is given", fix="leave it out, and call save_pretrained on the result")
    store = InMemory(str(getattr(model.config, "name_or_path", "")))
    for part in (model, *([] if tokenizer is None else [tokenizer])):
        part.save_pretrained(store.given)
    compress_model(str(store.given), output=store.checkpoint, **options)
    compressed = type(model).from_pretrained(store.checkpoint)
    compressed.save_pretrained, compressed.export = store.save_pretrained, store.export
    return compressed
