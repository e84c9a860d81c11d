"""JSON Schemas of the values that cross the HTTP face, made from the types that read and write them.

`openapi` uses it. It knows no path. It is our own because JSON that is kept as it came (`msgspec.Raw`) has no schema in
msgspec's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import inspect

from unbroken.messages import NUMBER_MAX

__all__ = ["Schema", "schemas"]

Schema = dict[str, object]
_PLAIN: Final[dict[type, Schema]] = {
    inspect.BoolType: {"type": "boolean"},
    inspect.StrType: {"type": "string"},
    inspect.BytesType: {"type": "string", "contentEncoding": "base64"},
    inspect.NoneType: {"type": "null"},
    inspect.FloatType: {"type": "number"},
}


def schemas(types: Iterable[type[msgspec.Struct]]) -> dict[str, Schema]:
    """The schema of each of `types` and of whatever stands in them, by its name."""
    found: dict[str, Schema] = {}
    for kind in types:
        _of(inspect.type_info(kind), found)
    return dict(sorted(found.items()))


def _of(kind: inspect.Type, found: dict[str, Schema]) -> Schema:
    if isinstance(kind, inspect.StructType):
        return _struct(kind, found)
    if isinstance(kind, inspect.IntType):
        return {"type": "integer", "minimum": -NUMBER_MAX if kind.ge is None else kind.ge, "maximum": NUMBER_MAX}
    if isinstance(kind, inspect.UnionType):
        parts = [_of(part, found) for part in kind.types if not _unset(part)]
        return parts[0] if len(parts) == 1 else {"anyOf": parts}
    if isinstance(kind, inspect.ListType):
        return {"type": "array", "items": _of(kind.item_type, found)}
    if isinstance(kind, inspect.DictType):
        return {"type": "object", "additionalProperties": _of(kind.value_type, found)}
    if isinstance(kind, inspect.EnumType):
        return {"enum": [member.value for member in kind.cls]}
    if isinstance(kind, inspect.Metadata):
        return _of(kind.type, found)
    return dict(_PLAIN.get(type(kind), {}))  # any JSON value


def _unset(kind: inspect.Type) -> bool:
    """Whether it says only that the field may be absent."""
    return isinstance(kind, inspect.CustomType) and kind.cls is msgspec.UnsetType


def _struct(kind: inspect.StructType, found: dict[str, Schema]) -> Schema:
    name = kind.cls.__name__
    reference: Schema = {"$ref": f"#/components/schemas/{name}"}
    if name in found:
        return reference
    schema = found[name] = {"type": "object", "title": name}
    if text := (kind.cls.__doc__ or "").strip().partition("\n")[0]:
        schema["description"] = text
    schema["properties"] = {field.encode_name: _of(field.type, found) for field in kind.fields}
    if required := [field.encode_name for field in kind.fields if field.required]:
        schema["required"] = required
    if kind.forbid_unknown_fields:
        schema["additionalProperties"] = False
    return reference
