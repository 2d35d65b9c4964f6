"""Whether a node matches its op: in the opset; inputs, outputs, attributes, types as declared."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import onnx
import onnx_ir

from .errors import VerifyError
from .graph import Node, Value

_KINDS = onnx_ir.AttributeType


def _onnx_name(dtype: onnx_ir.DataType) -> str:
    return f"tensor({onnx.TensorProto.DataType.Name(int(dtype)).lower()})"


_TENSOR = {dtype: _onnx_name(dtype) for dtype in onnx_ir.DataType}
_WRAPPED = {onnx_ir.SequenceType: "seq", onnx_ir.OptionalType: "optional"}


class Formal(NamedTuple):
    """One declared input or output; `variable` names the type it shares with others, if any."""

    name: str
    required: bool
    variadic: bool
    variable: str | None
    types: frozenset[str]


class Signature(NamedTuple):
    inputs: tuple[Formal, ...]
    outputs: tuple[Formal, ...]
    counts: tuple[int, int, int, int]
    """least and most inputs, least and most outputs"""
    attributes: dict[str, int]
    required: frozenset[str]


@lru_cache(maxsize=2048)
def signature(domain: str, op_type: str, version: int) -> Signature | None:
    """What the ONNX schema says, or None when there is none (or it is deprecated)."""
    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return None
    if schema.deprecated:
        return None
    allowed = {c.type_param_str: frozenset(c.allowed_type_strs) for c in schema.type_constraints}
    return Signature(
        tuple(_formal(formal, allowed) for formal in schema.inputs),
        tuple(_formal(formal, allowed) for formal in schema.outputs),
        (schema.min_input, schema.max_input, schema.min_output, schema.max_output),
        {name: _kind(found) for name, found in schema.attributes.items()},
        frozenset(name for name, found in schema.attributes.items() if found.required),
    )


def _formal(formal, allowed: dict[str, frozenset[str]]) -> Formal:
    option = onnx.defs.OpSchema.FormalParameterOption
    text = formal.type_str
    return Formal(
        formal.name,
        formal.option == option.Single,
        formal.option == option.Variadic,
        text if text in allowed and formal.is_homogeneous else None,
        allowed.get(text, frozenset([text])),
    )


def _kind(attribute: onnx.defs.OpSchema.Attribute) -> int:
    return int(getattr(attribute.type, "value"))  # noqa: B009  (an enum of compiled code)


@lru_cache(maxsize=64)
def _known_domain(domain: str) -> bool:
    return any(schema.domain == domain for schema in onnx.defs.get_all_schemas())


def check(node: Node, imports: Mapping[str, int], functions: Mapping) -> None:
    """Raise VerifyError when the node does not match its op.

    Ops of a local function are held to its signature; ops of domains that onnx has no schemas for
    (`com.microsoft`) only need an opset import.
    """
    if functions:
        function = functions.get((node.domain, node.op_type, node.overload))
        if function is not None:
            _check_call(node, function)
            return
    version = imports.get(node.domain)
    if version is None:
        raise VerifyError(
            f"domain '{node.domain}' has no opset import", at=node,
            hint="add it to graph.opset_imports, or define the op as a local function",
        )  # fmt: skip
    found = signature(node.domain, node.op_type, version)
    if found is None:
        if _known_domain(node.domain):
            raise VerifyError(
                f"op '{node.op_type}' is not in opset {version} of domain '{node.domain}'", at=node,
                hint="use an op of the working opset, or define a local function",
            )  # fmt: skip
        return
    _check_counts(node, found)
    _check_attributes(node, found)
    bound: dict[str, tuple[str, str]] = {}
    _check_types(node, "input", node.inputs, found.inputs, bound)
    _check_types(node, "output", node.outputs, found.outputs, bound)


def _check_call(node: Node, function: onnx_ir.Function) -> None:
    _count(node, "inputs", len(node.inputs), 0, len(function.inputs))
    _count(node, "outputs", len(node.outputs), 0, len(function.outputs))
    for name in node.attributes:
        if name not in function.attributes:
            raise VerifyError(
                f"attribute '{name}' is not one of {sorted(function.attributes)}", at=node,
                hint="declare it in the function, or drop it",
            )  # fmt: skip


def _count(node: Node, what: str, found: int, least: int, most: int) -> None:
    if not least <= found <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        raise VerifyError(
            f"expected {wanted} {what}, found {found}", at=node, hint="see the op's schema"
        )


def _check_counts(node: Node, found: Signature) -> None:
    least, most, least_out, most_out = found.counts
    inputs = node.inputs
    if not least <= len(inputs) <= most:
        _count(node, "inputs", len(inputs), least, most)
    if not least_out <= len(node.outputs) <= most_out:
        _count(node, "outputs", len(node.outputs), least_out, most_out)
    if None in inputs:
        for formal, value in zip(found.inputs, inputs, strict=False):
            if value is None and formal.required:
                raise VerifyError(
                    f"input '{formal.name}' is required, found none", at=node, hint="connect it"
                )


def _check_attributes(node: Node, found: Signature) -> None:
    attributes = node.attributes
    if attributes:
        for name, attribute in attributes.items():
            wanted = found.attributes.get(name)
            if wanted is None:
                raise VerifyError(
                    f"no attribute '{name}', expected one of {sorted(found.attributes)}", at=node,
                    hint="drop it",
                )  # fmt: skip
            if wanted != attribute.type:
                raise VerifyError(
                    f"attribute '{name}' must be of kind {_KINDS(wanted).name}, "
                    f"found {attribute.type.name}",
                    at=node, hint="make it with the right onnx_ir.Attr",
                )  # fmt: skip
    for name in found.required:
        if name not in attributes:
            raise VerifyError(
                f"attribute '{name}' is required, found none", at=node, hint="give it"
            )


def _check_types(node: Node, what: str, values, formals: tuple[Formal, ...], bound: dict) -> None:
    last = len(formals) - 1
    for index, value in enumerate(values):
        if value is None or value.type is None:
            continue
        formal = formals[index if index < last else last]
        text = type_name(value)
        if text is None:
            continue
        if text not in formal.types:
            raise VerifyError(
                f"{what} '{formal.name}' (%{value.name}) is {text}, "
                f"expected one of {sorted(formal.types)}",
                at=node, hint="insert a Cast, or correct the value's type",
            )  # fmt: skip
        if formal.variable is not None:
            other, where = bound.setdefault(formal.variable, (text, value.name))
            if other != text:
                raise VerifyError(
                    f"{what} '{formal.name}' (%{value.name}) is {text}, "
                    f"expected {other} as of %{where}",
                    at=node, hint="insert a Cast, or correct the value's type",
                )  # fmt: skip


def type_name(value: Value) -> str | None:
    """`tensor(float)`, `seq(tensor(int64))`, ... as schemas spell it; None when not known."""
    return _type_name(value.type)


def _type_name(kind) -> str | None:
    if type(kind) is onnx_ir.TensorType:
        return _TENSOR[kind.dtype] if kind.dtype else None
    if type(kind) in _WRAPPED:
        inner = _type_name(kind.elem_type)
        return None if inner is None else f"{_WRAPPED[type(kind)]}({inner})"
    return None


def fits(declared, actual) -> bool:
    """Whether two shapes agree wherever both dimensions are numbers."""
    return len(declared) == len(actual) and all(
        a == b
        for a, b in zip(declared, actual, strict=True)
        if isinstance(a, int) and isinstance(b, int)
    )
