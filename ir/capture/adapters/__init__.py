"""What to do with a node whose operator changed between the model's opset and ours: one table.

`ADAPTERS[op][version]` takes a node written for the schema in force before `version` and leaves
it (or nodes put in its place) meaning the same under the schema of `version`. Every other change
of a schema between opset 7 and 25 is listed in `reviewed.py` with the reason why nothing is due.
"""

from __future__ import annotations

from ir.capture.adapters import inputs, normalization, resize, scan, semantics
from ir.capture.adapters.context import Adapter, Context

ADAPTERS: dict[str, dict[int, Adapter]] = {}

for _family in (inputs, normalization, resize, scan, semantics):
    for (_op, _version), _adapter in _family.TABLE.items():
        ADAPTERS.setdefault(_op, {})[_version] = _adapter

__all__ = ["ADAPTERS", "Adapter", "Context"]
