"""``Hearing``: how an encoder of sound reads it."""

from dataclasses import dataclass

from ...text.log_mel import LogMel


@dataclass(frozen=True)
class Hearing:
    """How spectra become the states that the first block of an encoder reads: two convolutions over time, the
    second of which halves it, each with a GELU; positions are added.

    Attributes:
        convolutions: the modules ``[hidden, bins, 3]`` and ``[hidden, hidden, 3]``.
        positions: the table ``[tokens, hidden]``.
        bins: numbers of a spectrum.
        tokens: how many states a sound has, whatever its length.
        log_mel: where the spectra come from; None where no file beside the model says it.
    """

    convolutions: tuple[str, str]
    positions: str
    bins: int
    tokens: int
    log_mel: LogMel | None = None

    @property
    def frames(self) -> int:
        """How many spectra it reads."""
        return 2 * self.tokens
