"""Work in a second thread: its result, its typed errors, and that it never outlives the block."""

import threading

import pytest
from edgepress.errors import BundleError, EdgepressError
from edgepress.runtime.engine.load import BackgroundTask


def test_both_run_at_once() -> None:
    met = threading.Barrier(2, timeout=30)
    with BackgroundTask(met.wait) as beside:
        met.wait()
        assert beside.result() in (0, 1)


def test_it_begins_before_anybody_waits() -> None:
    begun = threading.Event()
    beside = BackgroundTask(begun.set)
    assert begun.wait(30)
    assert beside.result() is None is beside.result()


def test_typed_errors_come_with_the_result() -> None:
    def fails() -> None:
        raise BundleError("broken")

    with BackgroundTask(fails) as beside, pytest.raises(BundleError, match="broken"):
        beside.result()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_is_not_taken_for_a_result() -> None:
    with BackgroundTask(lambda: 1 / 0) as beside, pytest.raises(EdgepressError, match="traceback"):
        beside.result()


def test_the_block_ends_after_the_work() -> None:
    done, go = threading.Event(), threading.Event()

    def work() -> None:
        go.wait(30)
        done.set()

    with pytest.raises(ValueError, match="own"), BackgroundTask(work):
        go.set()
        raise ValueError("the block's own")
    assert done.is_set()
