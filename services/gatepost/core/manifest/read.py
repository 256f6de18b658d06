"""Reading what a user wrote: YAML into Structs, with file, field and reason in each error; the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
import yaml

T = TypeVar("T")


class ManifestError(ValueError):
    """Something a user wrote cannot be used. `where` is the file, with the object where there is one."""

    def __init__(self, where: str, field: str, reason: str) -> None:
        super().__init__(f"{where}: {field + ': ' if field else ''}{reason}")
        self.where = where
        self.field = field
        self.reason = reason


class _Loader(yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):  # type: ignore[misc]
    """Safe loading where a date stays a text and a key may stand only once."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands twice", key_node.start_mark)
            if isinstance(key, str):
                seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


def load_yaml(text: str, where: str) -> list[Any]:
    """Return the documents of a YAML text. Raises ManifestError with the line for a fault of form."""
    try:
        return [document for document in yaml.load_all(text, Loader=_Loader) if document is not None]
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ManifestError(where, line, error.problem or "not YAML") from None
    except yaml.YAMLError as error:
        raise ManifestError(where, "", f"not YAML: {error}") from None


_PATH = re.compile(r" - at `\$?\.?([^`]*)`$")


def convert(value: Any, kind: type[T], where: str) -> T:
    """Turn plain data into a Struct. Raises ManifestError that names the field as the user writes it."""
    try:
        return msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        text = str(error)
        found = _PATH.search(text)
        field = found.group(1) if found else ""
        raise ManifestError(where, field, _PATH.sub("", text)) from None


def apply_environment(document: dict[str, Any], environment: Mapping[str, str], kind: type) -> dict[str, Any]:
    """Return the document with GATEPOST_A__B_C variables set at a.bC.

    Values are read as YAML scalars or flow lists where the field is no text; a comma list makes a list.
    Raises ManifestError for a variable that names no field.
    """
    result = _copy(document)
    for name in sorted(environment):
        if not name.startswith("GATEPOST_") or ("__" not in name and name[9:].lower() not in _fields(kind)):
            continue
        _set(result, name, name[9:].split("__"), environment[name], kind)
    return result


def _copy(value: dict[str, Any]) -> dict[str, Any]:
    return {key: _copy(item) if isinstance(item, dict) else item for key, item in value.items()}


def _fields(kind: Any) -> dict[str, tuple[str, Any]]:
    """Map a Struct's Python field names to (written name, type)."""
    return {field.name: (field.encode_name, field.type) for field in msgspec.structs.fields(kind)}


def _set(target: dict[str, Any], variable: str, path: list[str], text: str, kind: Any) -> None:
    head, rest = path[0].lower(), path[1:]
    struct = _struct_of(kind)
    if struct is None:
        mapping = msgspec.inspect.type_info(kind)
        if isinstance(mapping, msgspec.inspect.DictType):
            written, inner = head.replace("_", "-"), _annotation(mapping.value_type)
        else:
            raise ManifestError("the environment", variable, "names no setting")
    else:
        known = _fields(struct)
        if head not in known:
            raise ManifestError("the environment", variable, f"names no setting: {head!r} is unknown")
        written, inner = known[head]
    if rest:
        child = target.get(written)
        target[written] = child if isinstance(child, dict) else {}
        _set(target[written], variable, rest, text, inner)
    else:
        target[written] = _scalar(text, inner)


def _annotation(info: msgspec.inspect.Type) -> Any:
    return info.cls if isinstance(info, msgspec.inspect.StructType) else str


def _struct_of(kind: Any) -> Any:
    info = msgspec.inspect.type_info(kind)
    candidates = info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)
    for candidate in candidates:
        if isinstance(candidate, msgspec.inspect.StructType):
            return candidate.cls
    return None


def _scalar(text: str, kind: Any) -> Any:
    info = msgspec.inspect.type_info(kind)
    if isinstance(info, msgspec.inspect.Metadata):
        info = info.type
    if isinstance(info, msgspec.inspect.StrType | msgspec.inspect.EnumType):
        return text
    if isinstance(info, msgspec.inspect.VarTupleType | msgspec.inspect.ListType):
        return [part.strip() for part in text.split(",") if part.strip()]
    return yaml.safe_load(text)
