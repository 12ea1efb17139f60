"""Whether the library of operators is there: its build is optional, and without it every test of operators is
skipped, so that a line that no compiler takes would pass unseen.
"""

import os
import shutil
import sysconfig

import pytest
from edgepress.runtime.kernels.library import library, why_missing


def test_where_there_is_a_compiler_it_was_built() -> None:
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    if shutil.which(compiler.split()[0]) is None:
        pytest.skip(f"no C compiler here ({compiler})")
    if os.environ.get("EDGEPRESS_KERNELS", "").lower() == "off":
        pytest.skip("EDGEPRESS_KERNELS is off")
    assert library() is not None, why_missing()
