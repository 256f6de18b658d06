"""One msgspec type -> one structural OpenAPI v3 schema, as Kubernetes' CustomResourceDefinitions take it.

Structural means: no $ref, no oneOf with types of its own, one `type` at each level. A tagged union therefore
becomes one object with all the members' fields, and CEL rules say which go with which `type`. Everything has a
limit, since the API server refuses rules whose cost it cannot bound; a type without one is an error here. No
defaults are written: unset means inherited, and compile applies the defaults.
"""

import re
from collections.abc import Sequence
from typing import Any

from msgspec import inspect

from crdgen import docstrings

Schema = dict[str, Any]

_INT32 = 2**31 - 1
_EXACT_FLOAT = 2**53  # the API server holds `maximum` as a float
# Names that CEL keeps for itself and Kubernetes escapes; none of our fields has one.
_RESERVED = re.compile(
    "true|false|null|in|as|break|const|continue|else|for|function|if|import|let|loop|package|namespace|return|"
    "var|void|while"
)
_FIELD = re.compile(r"[a-z][A-Za-z0-9]*")


class SchemaError(Exception):
    """A type cannot be expressed, or has no limit; the message names the field."""


def schema_of(kind: Any, where: str) -> Schema:
    """Return the schema of a Struct. Raises SchemaError; `where` is the path for its message."""
    return _schema(inspect.type_info(kind), where)


def _schema(info: inspect.Type, where: str) -> Schema:
    match info:
        case inspect.Metadata():
            extra = info.extra_json_schema or {}
            return {**_schema(info.type, where), **extra}
        case inspect.StructType():
            return _object([info], where) if info.tag_field else _struct(info, where)
        case inspect.UnionType():
            return _union(info, where)
        case inspect.EnumType():
            return {"type": "string", "enum": [member.value for member in info.cls]}
        case inspect.LiteralType():
            return {"type": "string", "enum": list(info.values)}
        case inspect.BoolType():
            return {"type": "boolean"}
        case inspect.IntType():
            return _integer(info, where)
        case inspect.StrType():
            return _string(info, where)
        case inspect.VarTupleType() | inspect.ListType():
            return _array(info, where)
        case inspect.DictType():
            return _map(info, where)
        case _:
            raise SchemaError(f"{where}: no schema for {type(info).__name__}")


def _integer(info: inspect.IntType, where: str) -> Schema:
    if info.ge is None or info.le is None:
        raise SchemaError(f"{where}: an integer needs ge and le")
    if max(abs(info.ge), abs(info.le)) > _EXACT_FLOAT:
        raise SchemaError(f"{where}: limits beyond 2**53 are not kept exactly")
    size = "int32" if info.le <= _INT32 else "int64"
    return {"type": "integer", "format": size, "minimum": info.ge, "maximum": info.le}


def _string(info: inspect.StrType, where: str) -> Schema:
    if info.max_length is None:
        raise SchemaError(f"{where}: a text needs a max_length")
    schema: Schema = {"type": "string", "maxLength": info.max_length}
    if info.min_length:
        schema["minLength"] = info.min_length
    if info.pattern:
        schema["pattern"] = info.pattern
    return schema


def _array(info: inspect.VarTupleType | inspect.ListType, where: str) -> Schema:
    if info.max_length is None:
        raise SchemaError(f"{where}: a list needs a max_length")
    schema: Schema = {"type": "array", "items": _schema(info.item_type, f"{where}[]"), "maxItems": info.max_length}
    if info.min_length:
        schema["minItems"] = info.min_length
    schema["x-kubernetes-list-type"] = "atomic"  # order counts; a type that merges says so with extra_json_schema
    return schema


def _map(info: inspect.DictType, where: str) -> Schema:
    """Keys have no schema of their own in structural schemas, so a rule bounds them."""
    key = info.key_type
    if info.max_length is None or not isinstance(key, inspect.StrType) or key.max_length is None:
        raise SchemaError(f"{where}: a map needs a max_length, and so do its keys")
    least = key.min_length or 0
    return {
        "type": "object",
        "additionalProperties": _schema(info.value_type, f"{where}{{}}"),
        "maxProperties": info.max_length,
        "x-kubernetes-validations": [
            {
                "rule": f"self.all(key, size(key) >= {least} && size(key) <= {key.max_length})",
                "message": f"a key has {least} to {key.max_length} characters",
            }
        ],
    }


def _union(info: inspect.UnionType, where: str) -> Schema:
    members = [member for member in info.types if not isinstance(member, inspect.NoneType)]
    if len(members) == 1:
        return _schema(members[0], where)
    structs = [member for member in members if isinstance(member, inspect.StructType)]
    if len(structs) != len(members) or any(member.tag_field is None for member in structs):
        raise SchemaError(f"{where}: only tagged unions of Structs have a structural schema")
    return _object(structs, where)


def _struct(info: inspect.StructType, where: str) -> Schema:
    return {"type": "object", **_about(info.cls), **_properties([info], where, {}, [])}


def _about(cls: type) -> Schema:
    description = docstrings.of_class(cls)
    return {"description": description} if description else {}


def _properties(
    structs: Sequence[inspect.StructType], where: str, first: dict[str, Schema], required: list[str]
) -> Schema:
    properties = dict(first)
    names = list(required)
    for struct in structs:
        texts = docstrings.of_attributes(struct.cls)
        for field in struct.fields:
            name = field.encode_name
            # Only unions have rules that name their fields.
            if (len(structs) > 1 and _RESERVED.fullmatch(name)) or not _FIELD.fullmatch(name):
                raise SchemaError(f"{where}.{name}: cannot be written in a rule")
            schema = _schema(field.type, f"{where}.{name}")
            if field.name in texts:
                schema = {**schema, "description": texts[field.name]}
            if properties.setdefault(name, schema) != schema:
                raise SchemaError(f"{where}.{name}: members of the union disagree about it")
            if field.required and len(structs) == 1 and name not in names:
                names.append(name)
    return {"properties": properties, **({"required": names} if names else {})}


def _object(members: Sequence[inspect.StructType], where: str) -> Schema:
    """A union of Structs that `type` tells apart, as one object with rules."""
    tag_field = members[0].tag_field
    assert tag_field is not None
    if tag_field != "type" or any(member.tag_field != tag_field for member in members):
        raise SchemaError(f"{where}: unions are told apart by `type`")
    tags = [str(member.tag) for member in members]
    tag_schema: Schema = {"type": "string", "enum": tags}
    texts = [
        f"{tag}: {text}"
        for tag, member in zip(tags, members, strict=True)
        if (text := docstrings.of_class(member.cls))
    ]
    if texts:
        tag_schema["description"] = "\n".join(texts)
    body = _properties(members, where, {tag_field: tag_schema}, [tag_field])
    rules = _member_rules(members)
    return {"type": "object", **body, **({"x-kubernetes-validations": rules} if rules else {})}


def _member_rules(members: Sequence[inspect.StructType]) -> list[Schema]:
    """What the merged object no longer says by itself. A single member needs none: its fields are its own."""
    if len(members) == 1:
        return []
    rules: list[Schema] = []
    names = list(dict.fromkeys(field.encode_name for member in members for field in member.fields))
    for name in names:
        holders = [str(m.tag) for m in members if any(field.encode_name == name for field in m.fields)]
        needing = [
            str(m.tag) for m in members if any(field.encode_name == name and field.required for field in m.fields)
        ]
        if len(holders) < len(members):
            rules.append(
                {
                    "rule": f"!has(self.{name}) || self.type in {_list(holders)}",
                    "message": f"{name} goes only with type {' or '.join(holders)}",
                    "fieldPath": f".{name}",
                }
            )
        for tag in needing:
            rules.append(
                {
                    "rule": f"self.type != '{tag}' || has(self.{name})",
                    "message": f"{name} is required with type {tag}",
                }
            )
    return rules


def _list(words: Sequence[str]) -> str:
    return "[" + ", ".join(f"'{word}'" for word in words) + "]"
