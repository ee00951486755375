"""Expressions of whole numbers with +, -, * and brackets: their value, and every value on the way."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable

Step = tuple[int, str, int, int]
"""Left operand, operator, right operand, result."""

_OPERATORS: dict[type[ast.operator], tuple[str, Callable[[int, int], int]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
}


def steps(expression: str) -> list[Step]:
    """The operations in the order in which they are computed. Raises ValueError for any other expression."""
    made: list[Step] = []

    def value(node: ast.expr) -> int:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return node.value
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            left, right = value(node.left), value(node.right)
            sign, compute = _OPERATORS[type(node.op)]
            made.append((left, sign, right, compute(left, right)))
            return made[-1][3]
        raise ValueError(f"{expression!r} is no expression of whole numbers")

    value(ast.parse(expression, mode="eval").body)
    return made


def largest(expression: str) -> int:
    """The largest number of the expression and of all results on the way."""
    return max(max(left, right, result) for left, _, right, result in steps(expression))


def natural(expression: str) -> bool:
    """Whether no result on the way is negative."""
    return all(result >= 0 for *_, result in steps(expression))
