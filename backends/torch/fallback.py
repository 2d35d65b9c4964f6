"""Ops without an implementation here: their ONNX function body, else one node in ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NotImplemented_

from backends.torch.body import Inlined, function_body
from backends.torch.dtypes import ONNX_TYPES, to_numpy, to_torch
from backends.torch.table import Site
from ir.errors import BackendError

ORT_OPSETS = {"": 26, "ai.onnx.ml": 5}  # newest that ONNX Runtime 1.32 accepts


class Fallback:
    """A node run by its function body, or by ONNX Runtime; decided per type of inputs, once.

    A body is made per shape too, for it may depend on it; a session takes any shape of its ranks.
    """

    def __init__(self, site: Site, attrs: dict[str, Any]) -> None:
        self.site = site
        self.attrs = attrs
        self.made: dict[tuple, Any] = {}

    def __call__(self, *args: Any) -> Any:
        key = tuple(self._kind(i, arg) for i, arg in enumerate(args))
        if key in self.made:
            return self.made[key](args)
        shaped = key, tuple(getattr(arg, "shape", None) for arg in args)
        if shaped not in self.made:
            made = self._make(key, args)
            self.made[key if isinstance(made, _Session) else shaped] = made
            return made(args)
        return self.made[shaped](args)

    def _kind(self, index: int, arg: Any) -> tuple[ir.DataType, int] | None:
        if arg is None:
            return None
        if isinstance(arg, list):
            first = self._kind(index, arg[0]) if arg else None
            return (first[0] if first else ir.DataType.FLOAT), -1
        if isinstance(arg, np.ndarray):
            return ir.DataType.STRING, arg.ndim
        return self.site.narrow(index) or ONNX_TYPES[arg.dtype], arg.ndim

    def _make(self, key: tuple, args: tuple) -> Any:
        types = [kind and _type_proto(kind[0], arg) for kind, arg in zip(key, args, strict=True)]
        model = self._node_model(types)
        body = function_body(model.graph.node[0], types, self.site.opset)
        if body is not None:
            return Inlined(model, body, self.site)
        for one in model.graph.input:
            _forget_sizes(one.type.tensor_type)
        return _Session(model, self.site, key)

    def _node_model(self, types: list) -> onnx.ModelProto:
        """One node over inputs `i0..` and outputs `o0..`, untyped outputs."""
        node, count = self.site.node, self.site.outputs
        proto = ir.to_proto(node)
        assert isinstance(proto, onnx.NodeProto)
        del proto.input[:], proto.output[:], proto.attribute[:]
        proto.input.extend("" if t is None else f"i{i}" for i, t in enumerate(types))
        names = [f"o{i}" if v.name else "" for i, v in enumerate(node.outputs[:count])]
        proto.output.extend(names)
        proto.attribute.extend(
            ir.to_proto(_attribute(name, value, node)) for name, value in self.attrs.items()
        )
        inputs = [onnx.ValueInfoProto(name=f"i{i}", type=t) for i, t in enumerate(types) if t]
        outputs = [onnx.ValueInfoProto(name=name) for name in names if name]
        graph = onnx.helper.make_graph([proto], "node", inputs, outputs)
        opsets = [onnx.helper.make_opsetid("", self.site.opset)]
        if node.domain:
            known = node.graph.opset_imports if node.graph is not None else {}
            version = known.get(node.domain) or ORT_OPSETS.get(node.domain, 1)
            opsets.append(onnx.helper.make_opsetid(node.domain, version))
        return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=11)


class _Session:
    """The node alone in ONNX Runtime; gradients stop with an error."""

    def __init__(self, model: onnx.ModelProto, site: Site, key: tuple) -> None:
        self.site, self.key = site, key
        for opset in model.opset_import:
            opset.version = min(opset.version, ORT_OPSETS.get(opset.domain, opset.version))
        try:
            self.session = _session(model, site)
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            raise BackendError(
                f"no implementation of {site.node.domain or 'ai.onnx'}::{site.node.op_type} for "
                f"these types: {text}",
                at=site.node,
                hint="rewrite the node in terms of supported ops",
            ) from error
        self.names = [o.name for o in self.session.get_outputs()]

    def __call__(self, args: tuple) -> tuple:
        if torch.is_grad_enabled() and any(getattr(a, "requires_grad", False) for a in args):
            raise BackendError(
                "a gradient would have to pass through a node that only ONNX Runtime can run",
                at=self.site.node,
                hint="cut the gradient before this node",
            )
        feeds = {
            f"i{i}": to_numpy(arg, kind[0])
            for i, (arg, kind) in enumerate(zip(args, self.key, strict=True))
            if kind is not None
        }
        results = dict(zip(self.names, self.session.run(None, feeds), strict=True))
        return tuple(
            to_torch(results.get(f"o{i}"), self.site.device)
            for i in range(len(self.site.node.outputs))
        )


def _session(model: onnx.ModelProto, site: Site) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    raw = onnx.shape_inference.infer_shapes(model).SerializeToString()
    try:
        return ort.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
    except NotImplemented_:
        schema = onnx.defs.get_schema(site.node.op_type, site.opset, site.node.domain)
        if site.node.domain or not 22 <= schema.since_version <= 25:
            raise
        # opsets 22 to 25 changed these ops by further types only, so 21 means the same
        model.opset_import[0].version = 21
        raw = onnx.shape_inference.infer_shapes(model).SerializeToString()
        return ort.InferenceSession(raw, options, providers=["CPUExecutionProvider"])


def _type_proto(code: ir.DataType, arg: Any) -> onnx.TypeProto:
    if isinstance(arg, list):
        return onnx.helper.make_sequence_type_proto(
            onnx.helper.make_tensor_type_proto(int(code), None)
        )
    return onnx.helper.make_tensor_type_proto(int(code), list(arg.shape))


def _forget_sizes(tensor: onnx.TypeProto.Tensor) -> None:
    for dim in tensor.shape.dim:
        dim.ClearField("dim_value")


def _attribute(name: str, value: Any, node: ir.Node) -> ir.Attr:
    own = node.attributes.get(name)
    if own is not None and not own.is_ref():
        return own
    if isinstance(value, ir.TensorProtocol):
        return ir.AttrTensor(name, value)
    return ir.convenience.convert_attribute(
        name, list(value) if isinstance(value, tuple) else value
    )
