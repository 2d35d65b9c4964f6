"""How onnx's operator schemas changed between opset 7 and 25, read from onnx.defs."""

from __future__ import annotations

import itertools
from collections import defaultdict
from functools import cache

import onnx.defs


@cache
def changes() -> dict[tuple[str, int], tuple]:
    """(op, version) -> (schema before, schema from that version on), for 8 <= version <= 25."""
    history = defaultdict(list)
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            history[schema.name].append(schema)
    found = {}
    for name, schemas in history.items():
        schemas.sort(key=lambda schema: schema.since_version)
        for before, after in itertools.pairwise(schemas):
            if 7 < after.since_version <= 25:
                found[name, after.since_version] = (before, after)
    return found


def kind(before: onnx.defs.OpSchema, after: onnx.defs.OpSchema) -> str:
    """'types': only types were added. 'options': optional parts were. Else 'breaking'."""
    if after.deprecated or not _types_only_grow(before, after):
        return "breaking"
    added = set(after.attributes) - set(before.attributes)
    for name, attribute in before.attributes.items():
        now = after.attributes.get(name)
        if now is None or now.type != attribute.type or (now.required and not attribute.required):
            return "breaking"
        if now.default_value != attribute.default_value:
            return "breaking"
    if any(after.attributes[name].required for name in added):
        return "breaking"
    grown = []
    for old, new in ((before.inputs, after.inputs), (before.outputs, after.outputs)):
        if not _prefix(old, new):
            return "breaking"
        grown.append(len(new) > len(old))
    return "options" if added or any(grown) else "types"


def _prefix(old: list, new: list) -> bool:
    """Every old place is still there and no stricter; every new one may be left out."""
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    if len(new) < len(old):
        return False
    for before, after in zip(old, new, strict=False):
        if after.option not in (before.option, optional):
            return False
    return all(place.option == optional for place in new[len(old) :])


def _types_only_grow(before: onnx.defs.OpSchema, after: onnx.defs.OpSchema) -> bool:
    places = (*zip(before.inputs, after.inputs, strict=False),)
    places += (*zip(before.outputs, after.outputs, strict=False),)
    return all(old.types <= new.types for old, new in places)
