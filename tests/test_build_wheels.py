"""What `make wheel` refuses to call a wheel for every Linux."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from build_wheels import library_faults, project_urls

GOOD = """
  Machine:                           Advanced Micro Devices X86-64
 0x0000000000000001 (NEEDED)             Shared library: [libm.so.6]
 0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]
     9: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND memcpy@GLIBC_2.14 (3)
    20: 0000000000005cf0    43 FUNC    GLOBAL DEFAULT   14 edgepress_kernels
    21: 0000000000004960   194 FUNC    GLOBAL DEFAULT   14 RegisterCustomOps
"""


def test_a_library_for_every_linux_is_one() -> None:
    assert library_faults(GOOD, "x86_64") == []


@pytest.mark.parametrize(
    ("from_text", "to_text", "fault"),
    [
        ("X86-64", "something", "not for x86_64"),
        ("libm.so.6", "libgomp.so.1", "needs libgomp.so.1"),
        ("(NEEDED) ", "(RUNPATH) ", "looks for others in libm.so.6"),
        ("GLIBC_2.14", "GLIBC_2.35", "needs glibc 2.35"),
        ("RegisterCustomOps", "Register", "does not export RegisterCustomOps"),
    ],
)
def test_what_another_linux_may_not_have_is_a_fault(from_text: str, to_text: str, fault: str) -> None:
    (found,) = library_faults(GOOD.replace(from_text, to_text, 1), "x86_64")
    assert fault in found


def test_who_publishes_gives_the_address_of_the_metadata() -> None:
    assert project_urls("") == {}
    found = project_urls("https://host.example/owner/edgepress")
    assert found["Homepage"] == "https://host.example/owner/edgepress"
    assert found["Changelog"] == "https://host.example/owner/edgepress/blob/main/CHANGELOG.md"


@pytest.mark.parametrize(
    "address", ["host/owner", "http://host/owner", "https://host", "https://host/a b", "https://"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="no address"):
        project_urls(address)
