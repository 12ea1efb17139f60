"""``Bundle``: an exported directory whose every file has been checked against its manifest.

Nothing of a bundle is parsed by a library before its hash is known to be right, and the graph can only open
files that the manifest lists. The weights alone may be hashed while a session is being made of them: they are
numbers that nothing parses, and no result leaves before they are known to be right.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files.storage import named_path, sha256_mapped
from .directory import (
    BUNDLE_SCHEMA,
    MANIFEST,
    BundleManifest,
    Kind,
    manifest_json,
    parse,
    read_manifest,
    readable,
    refuse,
    refuse_differences,
    refuse_foreign_data,
    refuse_links,
    refuse_short_data,
)
from .graph_sections import DecoderSection, EncoderDecoderSection, EncoderSection
from .onnx_wire import external_locations

# What asks an encoder–decoder.
READS, HEARS = 'generate BUNDLE --input "…"', "generate BUNDLE --audio FILE"
# Files of numbers alone, that no library parses.
_WEIGHTS = ".data"


@dataclass(frozen=True)
class Bundle:
    """A verified bundle directory. ``manifest`` is its whole JSON; the sections acted on are typed.

    Attributes:
        unchecked: names of the files whose hashes have been left to :meth:`check_weights`; none after it.
    """

    path: Path
    manifest: dict[str, Any] = field(repr=False)
    manifest_sha256: str
    _checked: BundleManifest = field(repr=False)
    unchecked: set[str] = field(default_factory=set)

    @classmethod
    def open(cls, path: Path | str, *, verify: bool = True, weights_later: bool = False) -> Bundle:
        """Open the bundle at ``path``; ``verify=False`` skips the hashes, never the other checks.

        ``weights_later`` leaves the hashes of the weights to who makes a session of the bundle
        (:func:`..engine.load.load_graph`).
        """
        root = named_path(path)
        with readable(root):
            raw = read_manifest(root / MANIFEST)
            document = manifest_json(raw, root / MANIFEST)
            checked = parse(BundleManifest, document, schema=BUNDLE_SCHEMA, where=str(root / MANIFEST))
            refuse_links(root, checked)
            later = frozenset(name for name in checked.files if weights_later and name.endswith(_WEIGHTS))
            if verify:
                refuse_differences(root, checked, sizes_only=later)
            for graph in (root / name for name in checked.graphs):
                weights = external_locations(graph)
                refuse_foreign_data(graph, set(weights) - set(checked.files))
                refuse_short_data(graph, weights)
            digest = hashlib.sha256(raw).hexdigest()
            return cls(root, document, digest, checked, set(later) if verify else set())

    def check_weights(self) -> None:
        """Compare the hashes of the weights, where :meth:`open` has left that for later."""
        with readable(self.path):
            problems = [
                f"{name} does not match its SHA-256"
                for name in sorted(self.unchecked)
                if sha256_mapped(self.path / name) != self._checked.files[name].sha256
            ]
        refuse(self.path, problems)
        self.unchecked.clear()

    @property
    def kind(self) -> Kind:
        """Whether it generates text, embeds it, or reads one and writes another."""
        return self._checked.kind

    @property
    def name(self) -> str:
        """The model's name, for tables; the directory's when the manifest has none."""
        return self._checked.name or self.path.name

    @property
    def scheme(self) -> str:
        """How its weights are stored: ``W4A16-g64 gptq``."""
        return self._checked.scheme

    @property
    def graph(self) -> Path:
        """The ONNX file, of an encoder–decoder the decoder's."""
        return self.path / self._checked.graph.file

    @property
    def encoder_graph(self) -> Path:
        """The ONNX file of an encoder–decoder's encoder; of others the one that there is."""
        return self.path / (self._checked.graph.encoder or self._checked.graph.file)

    @property
    def own_operators(self) -> bool:
        """Whether its graph has operators of edgepress's own, which no other runtime knows."""
        return self._checked.graph.operators == "edgepress"

    @property
    def disk_bytes(self) -> int:
        """Bytes of all its files, the manifest's own included."""
        return (
            sum(entry.bytes for entry in self._checked.files.values()) + (self.path / MANIFEST).stat().st_size
        )

    @property
    def decoder(self) -> DecoderSection:
        """The decoder's sizes and token ids."""
        self._refuse_encoder_decoder()
        if self.kind != "decoder" or self._checked.decoder is None:
            does, call = self.encoder.verb
            raise InputError(
                f"{self.path} is an encoder: it {does} text and cannot generate it",
                fix=f"use: edgepress {call}",
            )
        return self._checked.decoder

    @property
    def encoder(self) -> EncoderSection:
        """The encoder's pooling and limits."""
        self._refuse_encoder_decoder()
        if self.kind != "encoder" or self._checked.encoder is None:
            raise InputError(
                f"{self.path} is a decoder: it generates text, and has no embeddings or labels",
                fix='use: edgepress generate BUNDLE --prompt "…"',
            )
        return self._checked.encoder

    @property
    def encoder_decoder(self) -> EncoderDecoderSection:
        """Sizes and token ids of an encoder–decoder."""
        if self.kind == "encoder_decoder" and self._checked.encoder_decoder is not None:
            return self._checked.encoder_decoder
        does, call = ("generates", 'generate BUNDLE --prompt "…"')
        if self.kind == "encoder":
            does, call = self.encoder.verb
        raise InputError(
            f"{self.path} is no encoder–decoder: it {does} text, and reads no input beside that",
            fix=f"use: edgepress {call}",
        )

    def _refuse_encoder_decoder(self) -> None:
        if self.kind == "encoder_decoder":
            hears = self.encoder_decoder.sound is not None
            does = "writes down what is said in a sound" if hears else "reads a text and writes another"
            raise InputError(
                f"{self.path} is an encoder–decoder: it {does}, and no more",
                fix=f"use: edgepress {HEARS if hears else READS}",
            )
