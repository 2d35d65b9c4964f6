"""An op run as the function body that the ONNX standard gives for it."""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir

from backends.torch.table import Site

_NAME = "ptqc.body"


class Inlined:
    """One call `node` of a standard function, compiled as a graph of its body."""

    def __init__(self, model: onnx.ModelProto, body: onnx.FunctionProto, site: Site) -> None:
        from backends.torch.executor import Executor

        (node,) = model.graph.node
        _fill_defaults(node, site.opset)
        made = {name for inner in body.node for name in inner.output} | set(body.input)
        kept = [
            (ours, theirs)
            for ours, theirs in zip(node.output, body.output, strict=False)
            if ours and theirs in made
        ]
        self.outputs = list(node.output)
        del node.output[:], body.output[:], model.graph.output[:]
        node.output.extend(ours for ours, _ in kept)
        body.output.extend(theirs for _, theirs in kept)
        model.graph.output.extend(onnx.ValueInfoProto(name=ours) for ours, _ in kept)
        node.domain = body.domain = _NAME
        node.op_type = body.name = "Body"
        model.functions.append(body)
        model.opset_import.append(onnx.helper.make_opsetid(_NAME, 1))
        self.executor = Executor(ir.from_proto(model), device=site.device, dtype=site.float32)

    def __call__(self, args: tuple) -> tuple:
        given = self.executor.inputs
        feeds = {f"i{i}": arg for i, arg in enumerate(args) if f"i{i}" in given}
        results = self.executor.run(feeds)
        return tuple(results.get(name) for name in self.outputs)


def _fill_defaults(node: onnx.NodeProto, opset: int) -> None:
    """A body refers to attributes by name; those the node leaves out have the schema's default."""
    given = {attr.name for attr in node.attribute}
    for name, attr in onnx.defs.get_schema(node.op_type, opset, node.domain).attributes.items():
        if name not in given and attr.default_value.type:
            node.attribute.append(attr.default_value)


def function_body(
    node: onnx.NodeProto, types: list[onnx.TypeProto | None], opset: int
) -> onnx.FunctionProto | None:
    """The body that the ONNX standard gives for `node` at these input types, if it gives one."""
    try:
        schema: Any = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return None
    body = None
    if schema.has_function:
        version = max((v for v in schema.function_opset_versions if v <= opset), default=0)
        body = schema.get_function_with_opset_version(version) if version else None
    elif schema.has_context_dependent_function:
        versions = schema.context_dependent_function_opset_versions
        version = max((v for v in versions if v <= opset), default=0)
        if version:
            known = [(t or onnx.TypeProto()).SerializeToString() for t in types]
            body = schema.get_context_dependent_function_with_opset_version(
                version, node.SerializeToString(), known
            )
    if not body:
        return None
    return onnx.FunctionProto.FromString(body) if isinstance(body, bytes) else body
