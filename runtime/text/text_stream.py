"""From token ids to text as it grows: whole characters only, and never a part of a stop string.

A token may end inside a UTF-8 character, and a decoder may treat the first token of a text differently from
the rest. So each step decodes a short window that begins where text was last known to be complete, and passes
on what is new.
"""

from collections.abc import Sequence
from typing import Protocol

from ...errors import InputError

_INCOMPLETE = "\ufffd"
# Tokens that an incomplete character can have: three of its four bytes.
_OF_A_CHARACTER = 3
# Tokens without a complete character at their end that are looked at together: far more than one can have,
# for the sake of tokens without a text of their own, which may lie between its bytes.
_MOST_PENDING = 32


class Decodes(Protocol):
    """What is needed of a tokenizer."""

    def decode(self, ids: Sequence[int]) -> str: ...


class IncrementalDecoder:
    """Turns ids into pieces; joined they are the text of all ids, less an incomplete character at the end.

    Tokens that complete nothing are kept up to :data:`_MOST_PENDING`, so that a token costs the same however
    many went before: what no character can still need is passed on as it is, or forgotten if it has no text.
    """

    def __init__(self, tokenizer: Decodes) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._known = 0

    def feed(self, token: int) -> str:
        """The text that became certain with ``token``; often "" inside a character."""
        self._window.append(token)
        before = self._tokenizer.decode(self._window[: self._known])
        text = self._tokenizer.decode(self._window)
        if not text.endswith(_INCOMPLETE) and len(text) > len(before):
            return self._passed_on(before, text, len(self._window))
        if len(self._window) - self._known <= _MOST_PENDING:
            return ""
        certain, text = self._between_characters(text)
        if len(text) > len(before):
            return self._passed_on(before, text, certain)
        del self._window[self._known : certain]
        return ""

    def _between_characters(self, text: str) -> tuple[int, str]:
        """Where the window, which decodes to ``text``, can be cut with as few tokens behind it as a character
        can have, and what it says up to there. Inside a character its parts would decode to other text.
        """
        last = len(self._window)
        for certain in range(last - _OF_A_CHARACTER, last):
            said = self._tokenizer.decode(self._window[:certain])
            if said + self._tokenizer.decode(self._window[certain:]) == text:
                return certain, said
        return last, text

    def _passed_on(self, before: str, text: str, certain: int) -> str:
        """What ``text``, of the first ``certain`` tokens, says after ``before``; the next window keeps the
        tokens just passed on as its context.
        """
        self._window, self._known = self._window[self._known :], certain - self._known
        return text[len(before) :]


class StopStrings:
    """Cuts a growing text at the first place where one of the stop strings is complete.

    The result does not depend on how the text is cut into pieces: of several matches the one that ends first
    counts, and of those the longest.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if "" in stops:
            fix = "leave it out, or give the text to stop before"
            raise InputError('a stop string is "", which every text begins with', fix=fix)
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def feed(self, piece: str) -> str:
        """What may be shown after ``piece``; sets :attr:`stopped` when a stop string is complete."""
        text = self._held + piece
        matches = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if matches:
            self.stopped, self._held = True, ""
            return text[: min(matches)[1]]
        keep = self._possible_start(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _possible_start(self, text: str) -> int:
        """Length of the longest end of ``text`` that may grow into a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops if len(stop) > length):
                return length
        return 0

    def flush(self) -> str:
        """What was held back for a stop string that did not come."""
        held, self._held = self._held, ""
        return held
