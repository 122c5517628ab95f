"""Arithmetic over bands, as a configuration writes it: ``(nir - red) / (nir + red)``.

A text is parsed with ``ast`` and translated, node by node from a list of what is allowed, into
steps for a stack machine. Nothing of it is ever run as Python.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np

MAX_LENGTH = 1000
MAX_DEPTH = 200  # a sum of 200 bands is nested this deep

Function = Callable[..., Any]
# Push a band, push a number, or replace the last so many values by a function of them.
Step = str | np.float32 | tuple[Function, int]

_BACKTICKED = re.compile(r"`([^`]*)`")
_FORBIDDEN = re.compile(r"[^\w\s.,+\-*/()<>=!]")


def _reduce(operator: Function, *values: Any) -> Any:
    return functools.reduce(operator, values)


def _normalized_difference(a: Any, b: Any) -> Any:
    return (a - b) / (a + b)


def _chain(comparisons: tuple[Function, ...], *values: Any) -> Any:
    """``a < b <= c``: every neighbour compared."""
    each = (f(a, b) for f, a, b in zip(comparisons, values[:-1], values[1:], strict=True))
    return functools.reduce(np.logical_and, each)


# Name to the function, the fewest and the most values it takes.
FUNCTIONS: dict[str, tuple[Function, int, int]] = {
    "min": (functools.partial(_reduce, np.minimum), 2, MAX_LENGTH),
    "max": (functools.partial(_reduce, np.maximum), 2, MAX_LENGTH),
    "abs": (np.abs, 1, 1),
    "sqrt": (np.sqrt, 1, 1),
    "exp": (np.exp, 1, 1),
    "log": (np.log, 1, 1),
    "log10": (np.log10, 1, 1),
    "where": (np.where, 3, 3),
    "clip": (np.clip, 3, 3),
    "isfinite": (np.isfinite, 1, 1),
    "ndvi": (_normalized_difference, 2, 2),
    "normalized_difference": (_normalized_difference, 2, 2),
}
_OPERATORS: dict[type[ast.AST], Function] = {
    ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply, ast.Div: np.divide,
    ast.Pow: np.power, ast.UAdd: np.positive, ast.USub: np.negative,
    ast.And: np.logical_and, ast.Or: np.logical_or, ast.Not: np.logical_not,
    ast.Lt: np.less, ast.LtE: np.less_equal, ast.Gt: np.greater, ast.GtE: np.greater_equal,
    ast.Eq: np.equal, ast.NotEq: np.not_equal,
}  # fmt: skip
_ALLOWED = "only bands, numbers, + - * / **, comparisons, and, or, not and functions are"
_INSTEAD = {
    "&": "write `and`", "|": "write `or`", "~": "write `not`", "^": "a power is **",
    "%": "there is no remainder", "#": "put a band's name with # in backticks",
    "'": "a band's name goes without quotes, or in backticks",
    '"': "a band's name goes without quotes, or in backticks",
    "`": "backticks come in pairs, round one band's name",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Expression:
    """One expression over bands, in float32.

    It is made of numbers, band names, + - * / **, comparisons (also chained), ``and``, ``or``,
    ``not`` and ``FUNCTIONS``. A name that is no Python identifier stands in backticks:
    "`Band 1` / 2". Comparisons give 1 and 0, any number but 0 counts as true, and as in numpy a
    comparison with NaN does not hold, save for ``!=``.

    Args:
      text: the expression, at most 1000 characters.

    Attributes:
      bands: the bands that it uses.

    Raises:
      ValueError: it is not one, in one line.
    """

    text: str
    bands: frozenset[str] = dataclasses.field(init=False, repr=False, compare=False)
    _steps: tuple[Step, ...] = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        steps = _Translator(self.text).steps()
        bands = frozenset(s for s in steps if isinstance(s, str))
        if not bands:
            raise ValueError(f"{_short(self.text)}: names no band to compute from")
        object.__setattr__(self, "bands", bands)
        object.__setattr__(self, "_steps", steps)

    def __call__(self, bands: Mapping[str, np.ndarray]) -> np.ndarray:
        """Computes it. What cannot be computed (``1 / 0``, ``log(-1)``) is not finite.

        Args:
          bands: float32 arrays of one shape, at least those of ``bands``.

        Returns:
          A new float32 array of that shape.
        """
        stack: list[Any] = []
        with np.errstate(all="ignore"):
            for step in self._steps:
                if isinstance(step, str):
                    stack.append(bands[step])
                elif isinstance(step, tuple):
                    function, count = step
                    value = function(*stack[-count:])
                    stack[-count:] = [value.astype(np.float32, copy=False)]
                else:
                    stack.append(step)
        return np.array(stack[0]) if len(self._steps) == 1 else stack[0]


class _Translator:
    """A text, on its way to become steps in postfix order."""

    def __init__(self, text: str):
        self._text = text
        self._quoted: dict[str, str] = {}

    def steps(self) -> tuple[Step, ...]:
        if len(self._text) > MAX_LENGTH:
            self._refuse(f"has {len(self._text)} characters: at most {MAX_LENGTH} are read")
        if not self._text.strip():
            raise ValueError("the expression is empty: write one such as (nir - red) / (nir + red)")
        plain = _BACKTICKED.sub(self._placeholder, self._text)
        if found := _FORBIDDEN.search(plain):
            hint = _INSTEAD.get(found[0], "it has no meaning here")
            self._refuse(f"{found[0]!r} is not allowed: {hint}")
        try:
            tree = ast.parse(" ".join(plain.split()), mode="eval")
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            self._refuse("is not a valid expression: check its parentheses and operators")
        steps: list[Step] = []
        self._translate(tree.body, steps, MAX_DEPTH)
        return tuple(steps)

    def _placeholder(self, match: re.Match[str]) -> str:
        """An identifier that the text does not have otherwise."""
        prefix = "_"
        while prefix in self._text:
            prefix += "_"
        name = f"{prefix}{len(self._quoted)}"
        self._quoted[name] = match[1]
        return f" {name} "

    def _translate(self, node: ast.expr, steps: list[Step], depth: int) -> None:
        if depth == 0:
            self._refuse(f"is nested more than {MAX_DEPTH} deep: split it into several features")
        match node:
            case ast.Constant(value=value):
                steps.append(self._number(value))
                return
            case ast.Name(id=name):
                steps.append(self._quoted.get(name, name))
                return
            case ast.UnaryOp(op=op, operand=operand):
                function, operands = self._operator(op), [operand]
            case ast.BinOp(left=left, op=op, right=right):
                function, operands = self._operator(op), [left, right]
            case ast.BoolOp(op=op, values=operands):
                function = functools.partial(_reduce, self._operator(op))
            case ast.Compare(left=left, ops=ops, comparators=rest):
                function = functools.partial(_chain, tuple(self._operator(op) for op in ops))
                operands = [left, *rest]
            case ast.Call():
                function, operands = self._function(node)
            case ast.IfExp():
                self._refuse("`if` is not allowed: write where(condition, then, otherwise)")
            case _:
                self._refuse(f"`{_kind(node)}` is not allowed: {_ALLOWED}")
        for operand in operands:
            self._translate(operand, steps, depth - 1)
        steps.append((function, len(operands)))

    def _number(self, value: Any) -> np.float32:
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._refuse(f"{value} is not a number here: {_ALLOWED}")
        if not abs(value) <= float(np.finfo(np.float32).max):
            self._refuse("has a number that float32 cannot hold")
        return np.float32(value)

    def _operator(self, op: ast.AST) -> Function:
        if type(op) not in _OPERATORS:
            self._refuse(f"`{_kind(op)}` is not allowed: {_ALLOWED}")
        return _OPERATORS[type(op)]

    def _function(self, node: ast.Call) -> tuple[Function, list[ast.expr]]:
        if not isinstance(node.func, ast.Name) or node.func.id in self._quoted:
            self._refuse("only a function's name can be called")
        name = node.func.id
        if name not in FUNCTIONS:
            near = difflib.get_close_matches(name.lower(), FUNCTIONS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(FUNCTIONS)}"
            self._refuse(f"there is no function {_short(name)}: {hint}")
        if node.keywords:
            self._refuse(f"{name} takes its values in order, without names")
        function, least, most = FUNCTIONS[name]
        if not least <= len(node.args) <= most:
            wanted = str(least) if least == most else f"at least {least}"
            self._refuse(f"{name} takes {wanted} values, not {len(node.args)}")
        return function, node.args

    def _refuse(self, reason: str) -> NoReturn:
        raise ValueError(f"{_short(self._text)}: {reason}")


def _kind(node: ast.AST) -> str:
    """A node's kind in words: ``GeneratorExp`` is a generator exp."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(node).__name__).lower()


def _short(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 60 else line[:57] + "...")
