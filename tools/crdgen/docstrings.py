"""Attribute docstrings: Python drops the text below a field, so it is read from the source for descriptions."""

import ast
import inspect
import textwrap
from functools import cache

import msgspec


def of_class(cls: type) -> str:
    """Return the class's own docstring as one paragraph a line, "" without one (bases do not count)."""
    text = cls.__dict__.get("__doc__") or ""
    return _flow(inspect.cleandoc(text)) if isinstance(text, str) else ""


@cache
def of_attributes(cls: type) -> dict[str, str]:
    """Return attribute name -> the docstring right below it, for the class itself and its bases."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if issubclass(base, msgspec.Struct) and base is not msgspec.Struct:
            found.update(_own(base))
    return found


def _own(cls: type) -> dict[str, str]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for statement, below in zip(definition.body, definition.body[1:], strict=False):
        named = isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
        if named and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            text = below.value.value
            if isinstance(text, str):
                assert isinstance(statement, ast.AnnAssign)
                assert isinstance(statement.target, ast.Name)
                found[statement.target.id] = _flow(inspect.cleandoc(text))
    return found


def _flow(text: str) -> str:
    """Join the lines of each paragraph."""
    return "\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
