"""``Tokenizer``: text to ids and back with the tokenizers library alone, from the files beside a model.

``tokenizer.json`` is the truth about splitting; names of special tokens and the chat template come from the
files that transformers writes beside it. Truncation and padding that were saved inside ``tokenizer.json`` are
switched off: the caller decides about length. A tokenizer made of the parts of published ones runs in this
process (``tokenizer_shape.py``), any other in a child with limits (``tokenizer_process.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import BundleError, InputError, MissingDependency
from ...files.storage import read_json
from ...files.third_party_errors import memory_shortage, third_party_errors_are_typed
from .tokenizer_shape import is_known_model, known_parts

if TYPE_CHECKING:
    from .chat import ChatTemplate, Messages
    from .tokenizer_process import TokenizerProcess
    from .tokenizer_worker import LibraryTokenizer

FILE_LIMIT = 64 << 20
TEMPLATE_FILE_LIMIT = 1 << 20


def _check_unicode(texts: Sequence[str]) -> None:
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            "a text has characters that are not Unicode (lone surrogates)", why=str(error)
        ) from None


def _library_errors_are_typed(what: str) -> AbstractContextManager[None]:
    return third_party_errors_are_typed(lambda why: BundleError(what, why=why))


def _backend(file: Path) -> LibraryTokenizer | TokenizerProcess:
    """The tokenizer of ``file``, where it may run."""
    from .tokenizer_worker import LibraryTokenizer  # imports the library

    parts = known_parts(file.read_bytes())
    if parts is not None:
        with suppress(BundleError), _library_errors_are_typed("another shape"):
            found = LibraryTokenizer.assemble(*parts)
            if is_known_model(found.model):
                return found
    from .tokenizer_process import TokenizerProcess  # most starts need no child

    process = TokenizerProcess(file)
    process.id_of("")  # a file that is no tokenizer is said now
    return process


def _optional(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content = read_json(path)
    return content if isinstance(content, dict) else {}


def _content(token: object) -> str | None:
    """The text of a special token, saved as a string or as a mapping with its flags."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _ids(value: object) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, int) and not isinstance(item, bool)]


def chat_template_of(directory: Path, config: dict[str, Any]) -> str | None:
    """The Jinja source in the model's ``directory``, or in the ``config`` of its tokenizer; None without
    one.
    """
    file = directory / "chat_template.jinja"
    if file.is_file():
        if file.stat().st_size > TEMPLATE_FILE_LIMIT:
            raise BundleError(
                f"{file} is larger than {TEMPLATE_FILE_LIMIT >> 20} MB, too large for a template"
            )
        try:
            return file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise BundleError(f"{file} is not UTF-8", why=str(error)) from None
    saved = config.get("chat_template")
    if isinstance(saved, list):
        named = {item.get("name"): item.get("template") for item in saved if isinstance(item, dict)}
        saved = named.get("default")
    return saved if isinstance(saved, str) else None


class Tokenizer:
    """A tokenizer and its special tokens. Thread-safe: no call changes what it does.

    Attributes:
        bos_id, pad_id: ids, or None.
        eos_ids: ids that end a text, from the generation config, the model config and the tokenizer, in that
            order.
        chat_template: Jinja source, or None for a base model.
    """

    def __init__(self, backend: LibraryTokenizer | TokenizerProcess, directory: Path) -> None:
        self._backend = backend
        self._directory = directory
        names = _optional(directory / "special_tokens_map.json") | _optional(
            directory / "tokenizer_config.json"
        )
        configs = [_optional(directory / name) for name in ("generation_config.json", "config.json")]
        self._names = {
            key: text
            for key in ("bos_token", "eos_token", "pad_token", "unk_token", "cls_token", "sep_token")
            if (text := _content(names.get(key))) is not None
        }
        self.bos_id = self._named("bos_token")
        self.pad_id = self._named("pad_token")
        ends = [token for config in configs for token in _ids(config.get("eos_token_id"))]
        own = self._named("eos_token")
        self.eos_ids: list[int] = list(dict.fromkeys(ends if own is None else [*ends, own]))
        self.chat_template = chat_template_of(directory, names)
        self._chat: ChatTemplate | None = None

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest id it can give. A list of all tokens costs a start 30 ms, so only whoever
        asks pays for it.
        """
        return max(self._backend.vocabulary().values(), default=-1) + 1

    @cached_property
    def tokens(self) -> frozenset[str]:
        """Every token it knows, as it writes them."""
        return frozenset(self._backend.vocabulary())

    @classmethod
    def open(cls, directory: Path | str) -> Tokenizer:
        """Read ``tokenizer.json`` and its companions from a model or bundle directory."""
        folder = Path(directory)
        file = folder / "tokenizer.json"
        if not file.is_file():
            raise BundleError(
                f"{folder} has no tokenizer.json",
                fix="save it beside the model: AutoTokenizer.from_pretrained(…).save_pretrained(…)",
            )
        if file.stat().st_size > FILE_LIMIT:
            raise BundleError(f"{file} is larger than {FILE_LIMIT >> 20} MB, too large for a tokenizer")
        try:
            import tokenizers  # noqa: F401
        except ImportError as error:
            missing = MissingDependency("this needs the package 'tokenizers'", why=str(error))
            raise memory_shortage(error) or missing from None
        with _library_errors_are_typed(f"{file} is not a tokenizer"):
            return cls(_backend(file), folder)

    def _named(self, key: str) -> int | None:
        name = self._names.get(key)
        return None if name is None else self._backend.id_of(name)

    def encode(self, text: str, *, special: bool = True, max_length: int | None = None) -> list[int]:
        """Ids of ``text``; ``special`` adds what the model expects around it, within ``max_length``."""
        return self.encode_batch([text], special=special, max_length=max_length)[0]

    def encode_batch(
        self, texts: Sequence[str], *, special: bool = True, max_length: int | None = None
    ) -> list[list[int]]:
        """Ids of several texts, in parallel where the library is allowed to."""
        _check_unicode(texts)
        with _library_errors_are_typed(f"the tokenizer of {self._directory} failed on a text"):
            return self._backend.encode(texts, special, max_length)

    def encode_pairs(
        self, pairs: Sequence[tuple[str, str]], *, max_length: int | None = None
    ) -> list[list[list[int]]]:
        """Of each of ``pairs``, as a model reads two texts at once, four lists, a number a token: ids; token
        types; and the characters of the second text where it begins and ends, −1 outside of that.
        """
        _check_unicode([text for pair in pairs for text in pair])
        with _library_errors_are_typed(f"the tokenizer of {self._directory} failed on a text"):
            return self._backend.encode_pairs(pairs, max_length)

    def encode_words(self, texts: Sequence[str], *, max_length: int | None = None) -> list[list[list[int]]]:
        """Of each text four lists, a number a token: ids, with what the model expects around the text; the
        word that the token is of, −1 outside of the text; and the characters where it begins and ends.
        """
        _check_unicode(texts)
        with _library_errors_are_typed(f"the tokenizer of {self._directory} failed on a text"):
            return self._backend.encode_words(texts, max_length)

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of ``ids``, unknown ones skipped. Incomplete characters come out as U+FFFD."""
        with _library_errors_are_typed(f"the tokenizer of {self._directory} failed to decode"):
            return self._backend.decode([int(i) for i in ids], skip_special)

    def render_chat(self, messages: Messages, *, add_generation_prompt: bool = True) -> str:
        """The prompt text of one conversation, special tokens included: encode it with ``special=False``."""
        return self.render_chats([messages], add_generation_prompt=add_generation_prompt)[0]

    def render_chats(
        self, conversations: Sequence[Messages], *, add_generation_prompt: bool = True
    ) -> list[str]:
        """:meth:`render_chat` for many conversations at once."""
        if self.chat_template is None:
            raise InputError(
                f"{self._directory} has no chat template: it is a base model",
                fix="give the prompt as plain text, with --no-chat",
            )
        if self._chat is None:
            from .chat import ChatTemplate  # most starts need none

            self._chat = ChatTemplate(self.chat_template, self._names)
        return self._chat.render(conversations, add_generation_prompt=add_generation_prompt)
