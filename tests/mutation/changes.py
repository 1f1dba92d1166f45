"""The small changes: a bound moved by one, a condition turned round, a step left out. Found in the syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
SWAPPED = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a piece of source stands. Lines from 1; columns in bytes of UTF-8 from 0, as the syntax tree counts."""

    line: int
    column: int
    end_line: int
    end_column: int


@dataclass(frozen=True, slots=True)
class Change:
    """`before` at `place` becomes `after`."""

    place: Place
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.before}  →  {self.after}"

    def applied(self, source: str) -> str:
        """The whole source with this one change in it."""
        lines = source.encode().splitlines(keepends=True)
        head = b"".join(lines[: self.place.line - 1]) + lines[self.place.line - 1][: self.place.column]
        tail = lines[self.place.end_line - 1][self.place.end_column :] + b"".join(lines[self.place.end_line :])
        return (head + self.after.encode() + tail).decode()


def find_changes(source: str) -> list[Change]:
    """Every change that is worth trying, in the order of the source."""
    tree = ast.parse(source)
    found = [
        change
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for statement in function.body
        for change in in_statement(statement, source)
    ]
    unique = {(change.place, change.after): change for change in found}  # functions inside functions are met twice
    return sorted(unique.values(), key=lambda change: (change.place.line, change.place.column, change.after))


def in_statement(statement: ast.stmt, source: str) -> Iterator[Change]:
    """What could be changed in a statement. What only words an error or a log line is left alone."""
    if isinstance(statement, ast.Raise | ast.Assert | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return
    if isinstance(statement, ast.Expr) and is_telling(statement.value):
        return
    if is_removable(statement):
        yield change_at(statement, source, "pass")
    for node in ast.iter_child_nodes(statement):
        if isinstance(node, ast.stmt):
            yield from in_statement(node, source)
        elif isinstance(node, ast.ExceptHandler | ast.match_case):
            for inner in node.body:
                yield from in_statement(inner, source)
        elif not (isinstance(statement, ast.AnnAssign) and node is statement.annotation):
            yield from in_expression(node, source)


def is_telling(value: ast.expr) -> bool:
    """A docstring, or a call of the logger."""
    if isinstance(value, ast.Constant):
        return True
    return isinstance(value, ast.Call) and ast.unparse(value.func).startswith("logger.")


def is_removable(statement: ast.stmt) -> bool:
    """A step that does something by itself: a call, or a count that goes on."""
    return (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call | ast.Await)) or isinstance(
        statement, ast.AugAssign
    )


def in_expression(root: ast.AST, source: str) -> Iterator[Change]:
    for node in ast.walk(root):
        if isinstance(node, ast.expr) and (turned := turn(node)) is not None:
            yield change_at(node, source, turned)


def turn(node: ast.expr) -> str | None:
    """The source of `node` made slightly wrong; None where there is nothing to turn."""
    match node:
        case ast.Compare(ops=[operator], left=left, comparators=comparators) if type(operator) in COMPARISONS:
            return f"({ast.unparse(ast.Compare(left, [COMPARISONS[type(operator)]()], comparators))})"
        case ast.BoolOp(op=ast.And(), values=values):
            return f"({ast.unparse(ast.BoolOp(ast.Or(), values))})"
        case ast.BoolOp(op=ast.Or(), values=values):
            return f"({ast.unparse(ast.BoolOp(ast.And(), values))})"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return f"({ast.unparse(operand)})"
        case ast.BinOp(op=operation, left=left, right=right) if is_arithmetic(node):
            return f"({ast.unparse(ast.BinOp(left, ARITHMETIC[type(operation)](), right))})"
        case ast.Constant(value=bool() as truth):
            return str(not truth)
        case ast.Constant(value=int() as number):
            return f"{number + 1}"
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords) if name in SWAPPED:
            return ast.unparse(ast.Call(ast.Name(SWAPPED[name]), arguments, keywords))
    return None


def is_arithmetic(node: ast.BinOp) -> bool:
    """Whether an operator works on numbers, as far as the syntax tells: texts and types are put together alike."""
    texts = any(
        isinstance(side, ast.JoinedStr | ast.List | ast.Tuple) or is_text(side) for side in (node.left, node.right)
    )
    return type(node.op) in ARITHMETIC and not texts


def is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)


def change_at(node: ast.expr | ast.stmt, source: str, after: str) -> Change:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    place = Place(node.lineno, node.col_offset, node.end_lineno, node.end_col_offset)
    return Change(place, ast.get_source_segment(source, node) or "", after)
