"""``LogMel``: the spectra that a model is given of a sound, as numbers that a config has."""

from dataclasses import dataclass

RATE = 16_000  # samples a second, of every model that is known here


@dataclass(frozen=True)
class LogMel:
    """Spectra of ``samples`` numbers, ``rate`` a second: every ``hop`` samples one of a window of ``window``,
    whose powers ``bins`` filters add up, evenly spaced as the ear hears (mel), in logarithms.
    """

    rate: int
    samples: int
    window: int
    hop: int
    bins: int

    @property
    def frames(self) -> int:
        """How many spectra there are."""
        return self.samples // self.hop

    @property
    def seconds(self) -> int:
        """How much sound is read at once; shorter sounds are filled up with silence."""
        return self.samples // self.rate
