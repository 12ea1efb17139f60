"""Where the ``gensim`` package keeps its data files. The package is found, never imported.

It is the one package on PyPI that carries English articles and rated word pairs; importing it would pull in
scipy.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ...errors import MissingDependency

INSTALL = "pip install --no-deps gensim==4.4.0"


def data_file(name: str) -> Path:
    """The path of the data file ``name``.

    Raises:
        MissingDependency: the package is not installed, or this version of it lacks the file.
    """
    spec = find_spec("gensim")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependency(
            f"the demo data {name!r} comes with the package 'gensim', which is not installed",
            fix=f"install it with: {INSTALL}",
        )
    path = Path(next(iter(spec.submodule_search_locations))) / "test" / "test_data" / name
    if not path.is_file():
        raise MissingDependency(
            f"the installed 'gensim' does not carry {name!r}",
            why=f"{path} is missing",
            fix=f"install the version that does with: {INSTALL}",
        )
    return path
