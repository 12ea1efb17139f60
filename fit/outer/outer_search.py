"""``OuterSearch``: methods sampled by Optuna under the budgets (:mod:`.method_space`), by any number of
processes; the parts are chosen exactly for each sample. Akiba et al. 2019, "Optuna: A Next-generation
Hyperparameter Optimization Framework"; the sampler is the tree-structured Parzen estimator for several
objectives.

The study is a journal in the work directory, so that any number of processes take part. Each holds a lock on
its trial for as long as it lives: a trial that is running, and whose lock is free, is of a killed process,
and the next one takes it up where it stopped.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import GateFailed, InputError, require
from ...files.output_lock import OutputLock, alone
from ...terminal.progress import Silent
from ..methods import Method
from ..quantities import DISK
from ..search import Search
from ..solve import Infeasible
from .method_space import PRESETS, first_of, is_dear, method_of, sampled

_ASKED = 10  # samples for each trial: of those that were tried already, which cost nothing
_WAIT = 0.5  # seconds
# Of a trial: the recipe that it follows, where its sample is only the nearest; why nothing came of it.
_PACKAGED, _REFUSED = "packaged", "refused"

Sampler = Callable[[int], Any]


def by_parzen(seed: int) -> Any:
    """The sampler of a search, from a seed."""
    import optuna

    return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=6)


def _method(trial: Any) -> Method:
    """Of a trial of Optuna's."""
    return method_of(trial.params, trial.user_attrs.get(_PACKAGED, ""))


class _Held:
    """The lock that Optuna asks for; whoever writes holds that of the study already, which a kill frees."""

    def acquire(self) -> bool:
        """It is held."""
        return True

    def release(self) -> None:
        """Whoever took it gives it back."""


@dataclass(frozen=True)
class _Claim:
    """A trial of Optuna's that this process runs, under its lock."""

    trial: Any
    method: Method
    options: tuple[int, ...]
    predicted: dict[str, float]
    lock: OutputLock


class OuterSearch:
    """The part that a process has in a search for ``trials`` trials, whose study is at ``journal``.

    Attributes:
        ran: trials that were run here.
    """

    def __init__(
        self,
        search: Search,
        journal: Path,
        trials: int,
        seed: int = 0,
        sampler: Sampler = by_parzen,
        presets: Sequence[Method] = PRESETS,
    ) -> None:
        require("optuna", "search")
        import optuna
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.search, self.journal, self.trials = search, journal, trials
        self.seed, self.sampler, self.presets = seed, sampler, presets
        self.ran = 0
        self._taken: set[int] = set()
        with self._alone():
            backend = JournalFileBackend(str(journal), lock_obj=_Held())  # type: ignore[arg-type, unused-ignore]
            self.study = optuna.create_study(
                storage=optuna.storages.JournalStorage(backend),
                study_name="fit",
                directions=["minimize", "minimize"],
                load_if_exists=True,
            )

    def work(self, *, leads: bool) -> int:
        """Run trials until there are enough; who ``leads`` waits for those of others, and takes up what they
        leave. Returns how many were run here.
        """
        while True:
            with self._alone():
                self._take_in()
                claim = self._claim()
                running = any(one.state.name == "RUNNING" for one in self._known())
            if claim is not None:
                try:
                    self._run(claim)
                finally:  # whatever ended it: a later search in this very process takes it up
                    claim.lock.release()
                self.ran += 1
            elif leads and running:
                time.sleep(_WAIT)
            else:
                return self.ran

    def _known(self) -> list[Any]:
        return list(self.study.get_trials(deepcopy=False))

    def _alone(self) -> AbstractContextManager[None]:
        """No other process reads or writes the study."""
        return alone(self.journal.with_suffix(".lock"))

    def _lock_of(self, number: int) -> OutputLock:
        return OutputLock(self.journal.with_suffix(f".{number}.lock"))

    def _take_in(self) -> None:
        """Learn from the trials that ended since, by whichever process, and why others did not come to be."""
        for one in self._known():
            if (why := one.user_attrs.get(_REFUSED)) is not None:
                self.search.refuse(why)
            chosen = one.user_attrs.get("chosen")
            if one.number in self._taken or chosen is None or one.state.name != "COMPLETE":
                continue
            self._taken.add(one.number)
            options, predicted = tuple(chosen["options"]), chosen["predicted"]
            self.search.take(self.search.ran(options, _method(one), predicted, Silent()))

    def _claim(self) -> _Claim | None:
        """A trial that a killed process left, or a new one; None where there are enough, or time is over."""
        for one in self._known():
            if one.state.name == "RUNNING" and (claim := self._left(one)) is not None:
                return claim
        while self.search.time_left():
            known = self._known()
            number = sum("chosen" in one.user_attrs for one in known)
            if number >= self.trials or len(known) >= _ASKED * self.trials:
                return None
            dear = is_dear(number, self.trials)
            if dear and self.search.trials and not self.search.time_for(Method("corrected", epochs=1)):
                return None
            if (claim := self._asked(dear, known)) is not None:
                return claim
        return None

    def _left(self, one: Any) -> _Claim | None:
        """A running trial whose process was killed; what that had not chosen yet is dropped."""
        import optuna

        lock = self._lock_of(one.number)
        if not lock.acquire():
            return None
        chosen = one.user_attrs.get("chosen")
        if chosen is None:
            try:
                self.study.tell(one.number, state=optuna.trial.TrialState.FAIL)
            finally:
                lock.release()
            return None
        trial = optuna.trial.Trial(self.study, one._trial_id)  # no other way leads to a running one
        self.search.progress.note(f"{_method(one).name}: taken up from a process that was stopped")
        return _Claim(trial, _method(one), tuple(chosen["options"]), chosen["predicted"], lock)

    def _asked(self, dear: bool, known: list[Any]) -> _Claim | None:
        """A sample with the choice that is best for it; None where it was tried, or nothing keeps the
        budgets.
        """
        tried = [(one.params, one.user_attrs.get(_PACKAGED, "")) for one in known]
        preset = next(
            (one for one in first_of(self.search, self.presets, dear=dear) if one not in tried), None
        )
        if preset is not None:
            self.study.enqueue_trial(preset[0], user_attrs={_PACKAGED: preset[1]})
        self.study.sampler = self.sampler(self.seed + 1000 * len(known))
        trial = self.study.ask(sampled(self.search, dear=dear))
        method = _method(trial)
        try:
            found = self.search.choices.solved(method, trial.params.get("share", 1.0))
        except (GateFailed, InputError) as error:  # a cut that this model cannot have
            self._refuse(trial, f"{method.name}: {error.what}")
            return None
        if isinstance(found, Infeasible):
            self._refuse(trial, f"{method.name}: {self.search.choices.why(found, method)}")
            return None
        key = self.search.key(found.options, method)
        same = next((one for one in known if one.user_attrs.get("chosen", {}).get("key") == key), None)
        if same is not None:
            self._tell(trial, same.values if same.state.name == "COMPLETE" else None, same.constraints)
            return None
        lock = self._lock_of(trial.number)
        lock.acquire(wait=True)
        try:
            predicted = self.search.choices.predicted(found.options, method)
            trial.set_user_attr("chosen", {"key": key, "options": found.options, "predicted": predicted})
        except BaseException:
            lock.release()
            raise
        self.search.gap = found.gap
        return _Claim(trial, method, found.options, predicted, lock)

    def _run(self, claim: _Claim) -> None:
        said = self.search.said(claim.predicted)
        self.search.progress.note(f"{claim.method.name}: predicted {said}")
        try:
            search = self.search
            trial = search.ran(claim.options, claim.method, claim.predicted, search.progress)
        except (GateFailed, InputError) as error:
            # What this method cannot do to this model, or not well enough for its proof; others may.
            with self._alone():
                self._refuse(claim.trial, f"{claim.method.name}: {error.what}")
        else:
            judged = self.search.space.judged
            values = [trial.measured[DISK.name], judged.lost(trial.measured[judged.name])]
            with self._alone():
                self._tell(claim.trial, values, self.search.excesses(trial))

    def _refuse(self, trial: Any, why: str) -> None:
        """Keep the reason here, and in the study for the process that writes the report."""
        self.search.refuse(why)
        trial.set_user_attr(_REFUSED, why)
        self._tell(trial, None, {})

    def _tell(self, trial: Any, values: list[float] | None, excesses: dict[str, float]) -> None:
        import optuna

        if values is None:
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return
        for key, value in excesses.items():
            trial.set_constraint(key, value)
        self.study.tell(trial, values)
