"""docs/settings.md: every setting of gatepost.yaml with its type, default and meaning, from the types."""

from __future__ import annotations

import enum
from typing import Any

import msgspec
from msgspec import inspect

from crdgen import docstrings
from gatepost.core.manifest.settings import Settings

INTRODUCTION = """\
# Settings: gatepost.yaml

One file for each process; standalone it lies in the directory given to `gatepost run --config DIR`, in
Kubernetes the chart renders it. Unknown fields are errors. In a path `{state}` stands for the state directory.

Any value can come from the environment: `GATEPOST_`, then the path in upper case with `__` between levels and `_`
between words, as `GATEPOST_LOG__KAFKA__BOOTSTRAP_SERVERS=a:9092,b:9092`. Secrets are only ever paths of files.

This page is written from the types (`make docs`).
"""


def settings_page() -> str:
    lines = [INTRODUCTION]
    _section(Settings, "", lines, set())
    return "\n".join(lines).rstrip() + "\n"


def _section(cls: Any, path: str, lines: list[str], done: set[Any]) -> None:
    title = f"`{path}`" if path else "Top level"
    lines += [f"## {title}", ""]
    about = docstrings.of_class(cls)
    if about:
        lines += [about, ""]
    lines += ["| setting | type | default | meaning |", "|---|---|---|---|"]
    texts = docstrings.of_attributes(cls)
    later: list[tuple[Any, str]] = []
    for field in msgspec.structs.fields(cls):
        kind = inspect.type_info(field.type)
        inner = _struct(kind)
        where = f"{path}.{field.encode_name}" if path else field.encode_name
        if inner is not None:
            suffix = ".NAME" if isinstance(_bare(kind), inspect.DictType) else ""
            suffix = "[]" if isinstance(_bare(kind), inspect.VarTupleType) else suffix
            later.append((inner, where + suffix))
        meaning = texts.get(field.name, "").replace("\n", " ").replace("|", "\\|")
        lines.append(f"| `{field.encode_name}` | {_type(kind)} | {_default(field)} | {meaning} |")
    lines.append("")
    for inner, where in later:
        if (inner, where) not in done:
            done.add((inner, where))
            _section(inner, where, lines, done)


def _bare(kind: inspect.Type) -> inspect.Type:
    if isinstance(kind, inspect.Metadata):
        return _bare(kind.type)
    if isinstance(kind, inspect.UnionType):
        return _bare(next(one for one in kind.types if not isinstance(one, inspect.NoneType)))
    return kind


def _struct(kind: inspect.Type) -> Any:
    match _bare(kind):
        case inspect.StructType(cls=cls):
            return cls
        case inspect.DictType(value_type=value):
            return _struct(value)
        case inspect.VarTupleType(item_type=item):
            return _struct(item)
        case _:
            return None


def _type(kind: inspect.Type) -> str:
    match _bare(kind):
        case inspect.StructType():
            return "object"
        case inspect.DictType(value_type=value):
            return f"name → {_type(value)}"
        case inspect.VarTupleType(item_type=item):
            return f"list of {_type(item)}"
        case inspect.EnumType(cls=cls):
            return " \\| ".join(str(member.value) for member in cls)
        case inspect.BoolType():
            return "true \\| false"
        case inspect.IntType():
            return "number"
        case inspect.FloatType():
            return "number"
        case _:
            return "text"


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "**required**"
    value = field.default if field.default is not msgspec.NODEFAULT else None
    if field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    match value:
        case None | () | "":
            return "–"
        case enum.Enum():
            return f"`{value.value}`"
        case bool():
            return f"`{str(value).lower()}`"
        case tuple():
            return f"`[{', '.join(map(str, value))}]`"
        case dict() | msgspec.Struct():
            return "see below" if value else "–"
        case _:
            return f"`{value}`"
