"""The files that belong to a model beside its config and weights: tokenizer, settings, licences."""

from __future__ import annotations

from pathlib import Path

from ....files.storage import is_regular

# What a licence asks to be kept with the work.
LICENSES = ("LICENSE*", "LICENCE*", "COPYING*", "NOTICE*")
COMPANIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "source.spm",
    "target.spm",
    "target_vocab.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template*",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "modules.json",
    "sentence_*_config.json",
    "config_sentence_transformers.json",
    "[0-9]_*/config.json",
    *LICENSES,
)


def companions(directory: Path) -> list[str]:
    """Relative names of those in the ``directory`` of a checkpoint."""
    found = [(path, pattern) for pattern in COMPANIONS for path in directory.glob(pattern)]
    files = {path for path, pattern in found if not ("*" in pattern and path.is_dir()) and is_regular(path)}
    return sorted(path.relative_to(directory).as_posix() for path in files)
