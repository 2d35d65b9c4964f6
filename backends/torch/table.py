"""The one table of ops: op type -> torch function.

An op is a plain function: inputs are positional (None where an optional one is absent), attributes
are keyword arguments under their ONNX names. A function that declares `site` gets the node's own
facts. It returns a tensor, or a tuple for more than one output.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from backends.torch.dtypes import NARROW, TORCH_DTYPES
from ir.errors import BackendError


@dataclass(frozen=True)
class Site:
    """What an op may ask about the node it stands for.

    `types` are the inputs' ONNX element types where known before the run (always for types that
    torch lacks); `opset` the version of the default domain; `float32` the dtype that plays
    float32; `device` where new tensors go;
    `straight` whether the node is part of the body of an Encode or Decode.
    """

    node: ir.Node
    opset: int = 25
    types: tuple[ir.DataType | None, ...] = ()
    float32: torch.dtype = torch.float32
    device: str = "cpu"
    straight: bool = False

    @property
    def outputs(self) -> int:
        """How many outputs are wanted: up to the last one with a name."""
        wanted = [i for i, value in enumerate(self.node.outputs) if value.name]
        return wanted[-1] + 1 if wanted else 1

    def dtype(self, element: int) -> torch.dtype:
        """The torch dtype that holds ONNX element type `element`."""
        code = ir.DataType(element)
        if code is ir.DataType.FLOAT:
            return self.float32
        if code not in TORCH_DTYPES:
            raise BackendError(f"element type {code.name} has no torch form", at=self.node)
        return TORCH_DTYPES[code]

    def narrow(self, index: int) -> ir.DataType | None:
        """The type of input `index` if torch lacks it, else None."""
        code = self.types[index] if index < len(self.types) else None
        return code if code in NARROW else None


@dataclass(frozen=True)
class Entry:
    fn: Callable[..., Any]
    random: bool = False
    attrs: frozenset[str] = field(default_factory=frozenset)
    wants_site: bool = False
    defaults: dict[str, float] = field(default_factory=dict)


OPS: dict[str, Entry] = {}


def op(*names: str, random: bool = False) -> Callable[[Callable], Callable]:
    """Register a function as the implementation of ops `names` of the default domain."""

    def enter(fn: Callable) -> Callable:
        params = inspect.signature(fn).parameters.values()
        keywords = {p.name for p in params if p.kind is inspect.Parameter.KEYWORD_ONLY}
        # ONNX attributes are float32: 1e-5 means its float32 neighbour in double precision too
        single = {p.name: float(np.float32(p.default)) for p in params if type(p.default) is float}
        known = frozenset(keywords - {"site"})
        entry = Entry(fn, random, known, "site" in keywords, single)
        for name in names:
            if name in OPS:
                raise ValueError(f"op {name} is registered twice")
            OPS[name] = entry
        return fn

    return enter


def register(name: str, fn: Callable[..., Any]) -> None:
    """Register a function that takes no attributes (also one that has no Python signature)."""
    OPS[name] = Entry(fn)


def bind(entry: Entry, attrs: dict[str, Any], site: Site) -> Callable[..., Any]:
    """The entry's function with the node's attributes (and site) filled in.

    Raises BackendError for an attribute the implementation does not know.
    """
    unknown = sorted(attrs.keys() - entry.attrs)
    if unknown:
        raise BackendError(f"attribute {unknown[0]} is not supported here", at=site.node)
    if entry.defaults:
        attrs = {**entry.defaults, **attrs}
    if entry.wants_site:
        attrs = {**attrs, "site": site}
    return functools.partial(entry.fn, **attrs) if attrs else entry.fn
