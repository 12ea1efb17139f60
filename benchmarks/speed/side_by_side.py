"""Measures bundles in several places at once: here and on devices that ssh reaches, each at its own pace.

What a place gives is recorded as it ends; one that fails does not stop the others.
"""

import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from ...devices.own_devices import OwnDevice
from ...errors import EdgepressError, together
from ...terminal.progress import Progress
from ..records import record as records
from ..records.record import Measurement
from .elsewhere import Request, profile_on
from .foreseen import apart, foreseen_on
from .profile import profile_bundle
from .sitting import Sitting

HERE = "here"


class SideBySide:
    """The places and what came of each.

    Attributes:
        lines: by place, in their order, the line of the bundle. errors: by place, why there is none.
    """

    def __init__(self, request: Request, record: Path, progress: Progress) -> None:
        self.lines: dict[str, Measurement] = {}
        self.errors: dict[str, EdgepressError] = {}
        self._request, self._record, self._progress = request, record, progress
        self._recording = threading.Lock()

    def run(self, places: Sequence[OwnDevice | None]) -> None:
        """Measure in every place; None is here, in the calling thread."""
        records.refuse_foreign(self._record)
        if len(places) == 1:
            return self._measure(places[0])
        others = [
            threading.Thread(target=self._try, args=(place,), daemon=True)
            for place in places
            if place is not None
        ]
        for thread in others:
            thread.start()
        if None in places:
            self._try(None)
        for thread in others:
            thread.join()
        names = [HERE if place is None else place.name for place in places]
        self.lines = {name: self.lines[name] for name in names if name in self.lines}
        return None

    def failure(self) -> EdgepressError | None:
        """One error for all places that failed; None where none did."""
        return together(self.errors)

    def _try(self, place: OwnDevice | None) -> None:
        try:
            self._measure(place)
        except EdgepressError as error:
            name = HERE if place is None else place.name
            self.errors[name] = error
            self._progress.note(f"{name}: {error.what}")

    def _measure(self, place: OwnDevice | None) -> None:
        found = self._here() if place is None else profile_on(place, self._request, self._progress)
        with self._recording:
            for line in found:
                records.append(self._record, line)
        self.lines[HERE if place is None else place.name] = found[-1]
        if place is not None:  # of here profile_bundle says it
            expected = foreseen_on(place.name, self._request.bundles[0], found[-1])
            for text in apart(expected, found[-1].metrics):
                self._progress.note(f"{place.name}: {text}")

    def _here(self) -> list[Measurement]:
        """As on a device: the machine comes to rest first, and threads are pinned."""
        bundle, *baseline = self._request.bundles
        with tempfile.TemporaryDirectory(prefix="edgepress-") as folder:
            run = Path(folder) / "run.jsonl"
            profile_bundle(
                bundle,
                baseline=baseline[0] if baseline else None,
                protocol=self._request.protocol,
                command=self._request.command,
                progress=self._progress,
                record=run,
                sitting=Sitting(self._request.settle_s),
                **self._request.options,
            )
            return records.read([run])
