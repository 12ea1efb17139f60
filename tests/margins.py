"""How near each passing comparison of numbers comes to its bound, as a plugin of pytest.

``python -m pytest -p tests.margins …`` writes one JSON line a comparison, the nearest of each place, to the
file that EDGEPRESS_MARGINS names: test, line, difference over tolerance (1 is the bound). A comparison that
comes near its bound here fails on another processor. Read are ``assert_allclose``, ``assert_close``,
``allclose``, ``approx``, and assertions of the form ``a < b`` whose sides are floats.
"""

import ast
import itertools
import json
import operator
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _pytest import approx as python_api

ROOT = Path(__file__).parent.parent
OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_nearest: dict[str, dict[str, Any]] = {}


def _noted(share: float, where: str) -> None:
    if np.isfinite(share) and share > _nearest.get(where, {}).get("share", -1):
        test = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0]
        _nearest[where] = {"where": where, "test": test, "share": round(float(share), 5)}


def _place() -> str:
    """File and line of the nearest frame that lies in a test."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT / "tests") and path.name != "margins.py":
            return f"{path.relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


def _array(values: Any) -> np.ndarray[Any, Any]:
    if isinstance(values, torch.Tensor):
        return values.detach().double().cpu().numpy()
    return np.asarray(values, np.float64)


def _share(actual: Any, expected: Any, rtol: float, atol: float) -> None:
    try:
        a, b = (_array(side) for side in (actual, expected))
        if a.size and (rtol or atol):
            bound = atol + rtol * np.abs(b)
            shares = np.abs(a - b) / np.where(bound == 0, np.inf, bound)
            _noted(float(np.nanmax(shares)), _place())
    except (TypeError, ValueError, RuntimeError):
        return


def _watched(compare: Callable[..., Any], rtol: float, atol: float) -> Callable[..., Any]:
    @wraps(compare)
    def compared(actual: Any, expected: Any, *rest: Any, **how: Any) -> Any:
        given = [how.get(name) for name in ("rtol", "atol")]
        used = [rest[i] if len(rest) > i and isinstance(rest[i], float) else given[i] for i in (0, 1)]
        _share(actual, expected, rtol if used[0] is None else used[0], atol if used[1] is None else used[1])
        return compare(actual, expected, *rest, **how)

    return compared


def pytest_configure(config: pytest.Config) -> None:
    """Watch the functions that compare."""
    np.testing.assert_allclose = _watched(np.testing.assert_allclose, 1e-7, 0)
    np.allclose = _watched(np.allclose, 1e-5, 1e-8)
    torch.allclose = _watched(torch.allclose, 1e-5, 1e-8)
    torch.testing.assert_close = _watched(torch.testing.assert_close, 1.3e-6, 1e-5)
    equal = python_api.ApproxScalar.__eq__

    def near(self: Any, actual: Any) -> bool:
        if isinstance(actual, (int, float, np.number)) and self.tolerance:
            _noted(abs(float(actual) - float(self.expected)) / self.tolerance, _place())
        return equal(self, actual)

    python_api.ApproxScalar.__eq__ = near  # type: ignore[method-assign]


def _number(node: ast.expr) -> float | None:
    """The value of arithmetic on plain numbers, ``tensor(…)`` of one among them."""
    match node:
        case ast.Constant(value=bool() | str() | None):
            return None
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.Call(func=ast.Name(id="tensor" | "float64" | "float32"), args=[one, *_]):
            return _number(one)
        case ast.Call(func=ast.Attribute(attr="float64" | "float32"), args=[one]):
            return _number(one)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return None if (value := _number(inner)) is None else -value
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            values = _number(left), _number(right)
            return None if values[0] is None or values[1] is None else OPERATORS[type(op)](*values)
    return None


def pytest_assertion_pass(item: pytest.Item, lineno: int, orig: str, expl: str) -> None:
    """Of ``a < b``: the smaller side over the larger."""
    try:
        tree = ast.parse(expl.splitlines()[0].strip(), mode="eval").body
    except (SyntaxError, ValueError):
        return
    for part in tree.values if isinstance(tree, ast.BoolOp) else [tree]:
        if not isinstance(part, ast.Compare) or not isinstance(
            part.ops[0], ast.Lt | ast.LtE | ast.Gt | ast.GtE
        ):
            continue
        sides = [part.left, *part.comparators]
        numbers = [_number(side) for side in sides]
        for first, second in itertools.pairwise(numbers):
            if first is not None and second is not None and not (first.is_integer() and second.is_integer()):
                small, large = sorted((first, second))
                if small > 0:
                    _noted(small / large, f"{item.path.relative_to(ROOT)}:{lineno}")


def pytest_sessionfinish() -> None:
    """Add what this process saw to the file."""
    if name := os.environ.get("EDGEPRESS_MARGINS"):
        with Path(name).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in _nearest.values())
