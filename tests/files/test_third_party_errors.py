"""Whatever a library raises becomes the typed error; interrupts and typed errors pass."""

import pytest
from edgepress.errors import BundleError, EdgepressError, OutOfResource, RefusedByPolicy, SigTerm
from edgepress.files.third_party_errors import (
    memory_shortage,
    shortages_are_typed,
    third_party_errors_are_typed,
)


def typed(why: str) -> EdgepressError:
    return BundleError("cannot read tokenizer.json", why=why)


class Panic(BaseException):
    """As native code raises it: no Exception, and of a class that cannot be imported."""


@pytest.mark.parametrize(
    "raised", [Exception("bare"), ValueError("value"), OSError(5, "io"), Panic("native")]
)
def test_library_errors_are_typed_and_keep_their_cause(raised: BaseException) -> None:
    with pytest.raises(BundleError) as caught, third_party_errors_are_typed(typed):
        raise raised
    assert caught.value.why == f"{type(raised).__name__}: {raised}"
    assert caught.value.__cause__ is raised


SHORTAGES = [
    MemoryError(),
    OSError(12, "Cannot allocate memory"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("bad allocation"),
    RuntimeError(
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer"
    ),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1000 bytes."),
    RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1000 bytes."),
    RuntimeError("can't start new thread"),
    SystemError("error return without exception set"),
    ImportError("_C.so: failed to map segment from shared object"),
]


@pytest.mark.parametrize("raised", SHORTAGES, ids=str)
def test_what_says_that_memory_ran_out_is_no_bad_input(raised: Exception) -> None:
    found = memory_shortage(raised)
    assert found is not None and found.exit_code == 6
    if not isinstance(raised, MemoryError):
        with pytest.raises(OutOfResource), third_party_errors_are_typed(typed):
            raise raised


@pytest.mark.parametrize(
    "raised", [ValueError("no memory of it"), OSError(5, "io"), RuntimeError("a bad graph")]
)
def test_other_errors_are_no_shortage(raised: Exception) -> None:
    assert memory_shortage(raised) is None


@pytest.mark.parametrize(
    "raised",
    [KeyboardInterrupt(), SystemExit(3), GeneratorExit(), MemoryError(), RefusedByPolicy("a pickle")],
)
def test_interrupts_and_typed_errors_pass(raised: BaseException) -> None:
    with pytest.raises(type(raised)) as caught, third_party_errors_are_typed(typed):
        raise raised
    assert caught.value is raised


def test_sigterm_passes() -> None:
    with pytest.raises(SigTerm), third_party_errors_are_typed(typed):
        raise SigTerm


def test_endless_messages_are_cut() -> None:
    with pytest.raises(BundleError) as caught, third_party_errors_are_typed(typed):
        raise ValueError("x" * 100_000)
    assert len(caught.value.why) < 500


def test_the_body_that_succeeds_is_left_alone() -> None:
    with third_party_errors_are_typed(typed):
        result = 7
    assert result == 7


def test_only_a_shortage_is_typed_where_nothing_else_is() -> None:
    with pytest.raises(OutOfResource), shortages_are_typed():
        raise RuntimeError("Failed to allocate memory for requested buffer of size 9")
    with pytest.raises(ValueError, match="other"), shortages_are_typed():
        raise ValueError("other")
    with pytest.raises(BundleError), shortages_are_typed():
        raise BundleError("out of memory, says a bundle")
