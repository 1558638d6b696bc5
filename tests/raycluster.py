"""KubeRay's published definition of a RayCluster, and the part of it in raycluster_schema.yaml."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Schema = dict[str, Any]
PART: Schema = yaml.safe_load(Path(__file__).with_name("raycluster_schema.yaml").read_text())


def published(file: str | Path) -> Schema:
    """The schema in a CustomResourceDefinition, for its version v1.

    As with ``kubectl apply``, which validates strictly, a field that is not named is an error.
    """
    definition = yaml.load(Path(file).read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (v1,) = [one for one in definition["spec"]["versions"] if one["name"] == "v1"]
    return _strict(v1["schema"]["openAPIV3Schema"])


def _strict(schema: Schema) -> Schema:
    """A schema of OpenAPI in the words of JSON Schema."""
    kept = {key: schema[key] for key in KEPT if key in schema}
    if "properties" in schema:
        kept["properties"] = {name: _strict(one) for name, one in schema["properties"].items()}
        kept["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    if isinstance(schema.get("additionalProperties"), dict):
        kept["additionalProperties"] = _strict(schema["additionalProperties"])
    if "items" in schema:
        kept["items"] = _strict(schema["items"])
    return kept


KEPT = (
    "type",
    "required",
    "enum",
    "pattern",
    "anyOf",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
)


def resolved(schema: Schema) -> Schema:
    """A schema of :data:`PART`, or what it refers to."""
    return PART["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def beyond(part: Schema, whole: Schema, place: str = "") -> Iterator[str]:
    """Where a part of a schema allows what the whole does not, as far as our file needs it."""
    part = resolved(part)
    if "const" in part:
        return
    if part.get("type") != whole.get("type"):
        yield f"{place}: type {part.get('type')} is not {whole.get('type')}"
    if not set(part.get("required", ())) >= set(whole.get("required", ())):
        yield f"{place}: {whole['required']} are required"
    if "enum" in whole and not set(part.get("enum", [None])) <= set(whole["enum"]):
        yield f"{place}: only {whole['enum']} are allowed"
    for name, one in part.get("properties", {}).items():
        if name in whole.get("properties", {}):
            yield from beyond(one, whole["properties"][name], f"{place}.{name}")
        else:
            yield f"{place}.{name}: no such field"
    for key in ("items", "additionalProperties"):
        if isinstance(part.get(key), dict):
            yield from beyond(part[key], whole.get(key) or {}, f"{place}.{key}")


def unused(schema: Schema, value: Any) -> set[tuple[int, str]]:
    """The fields of a schema's objects that a value does not have, with the ids of the objects."""
    has: set[tuple[int, str]] = set()
    named: set[tuple[int, str]] = set()

    def walk(schema: Schema, value: Any) -> None:
        schema = resolved(schema)
        fields = schema.get("properties", {})
        named.update((id(schema), name) for name in fields)
        if isinstance(value, list):
            for one in value:
                walk(schema["items"], one)
        elif isinstance(value, dict):
            for name in fields.keys() & value.keys():
                has.add((id(schema), name))
                walk(fields[name], value[name])

    walk(schema, value)
    return named - has
