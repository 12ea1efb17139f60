"""``ExportJob``: one export as every format sees it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..compress.model.pooling import Pooling
from ..compress.model.weights import WeightSource
from ..runtime.bundle.preprocessing import Preprocessing
from ..terminal.progress import Progress, Silent
from .graph.attention.cache_io import FLOAT
from .graph.forms.providers import CPU, ProviderForm
from .sentence_texts import Prompts


@dataclass(frozen=True)
class ExportJob:
    """What is exported.

    Attributes:
        source: the checkpoint. name, described: what it is called, and its name in tables.
        made: what the checkpoint was made of: its manifest, or of a plain one its name and licence.
        pooling: of an encoder, from the files beside it; None for a decoder.
        images: how they are prepared, for a model that reads images.
        prompts: what is put in front of the texts that an encoder reads.
        text: file whose text the proof uses; the built-in passage when None.
        as_float: export the weights dequantized and the cache in float32, whatever the checkpoint stores.
        form: of the provider that the graph is written for.
        kv_dtype: of the key/value cache of a decoder: a value of :data:`.cache_io.TYPES`.
    """

    source: WeightSource
    name: str
    described: str
    made: dict[str, Any] = field(default_factory=dict)
    pooling: Pooling | None = None
    images: Preprocessing | None = None
    prompts: Prompts = field(default_factory=Prompts)
    text: Path | None = None
    as_float: bool = False
    form: ProviderForm = CPU
    kv_dtype: str = FLOAT
    progress: Progress = field(default_factory=Silent)

    @property
    def path(self) -> Path:
        """Directory of the checkpoint."""
        return self.source.reader.path

    @property
    def stored_bytes(self) -> int:
        """Bytes of all tensors of the checkpoint; in float32 of those whose codes another tool made."""
        reader = self.source.reader
        return sum(map(reader.read_bytes, reader.shapes))

    @property
    def rounds(self) -> bool:
        """Whether anything in the exported graph is quantized."""
        source = self.source
        tables = source.embedding_scheme, source.head_scheme
        stored = bool(source.schemes) or tables != (None, None) or self.kv_dtype != FLOAT
        return stored and not self.as_float
