"""The limit of time: what lasts longer is stopped, what does not is left alone, and no alarm stays."""

import signal
import threading

import pytest
from edgepress.benchmarks.lab.gpu.time_limit import within
from edgepress.errors import GateFailed


def test_what_lasts_longer_is_stopped() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(GateFailed, match=r"waiting was stopped after 0.05 s"), within(0.05, "waiting"):
        threading.Event().wait(60)
    assert signal.getsignal(signal.SIGALRM) is before


def test_what_ends_in_time_is_left_alone() -> None:
    with within(60, "nothing"):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
