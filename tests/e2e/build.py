"""Hand-written ONNX models in few lines."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Build:
    """Nodes and weights of one graph; `sub()` is a body that sees the outer names.

    A call of an op gives the name of its output (a list of names for `outputs=n`).
    """

    def __init__(self, seed=0, prefix="", outer=None):
        self.rng = np.random.default_rng(seed) if outer is None else outer.rng
        self.prefix, self.outer = prefix, outer
        self.nodes, self.weights, self.inputs, self.outputs = [], [], [], []
        self.functions, self.count = [], 0

    def sub(self, prefix):
        return Build(prefix=prefix, outer=self)

    def name(self, stem):
        self.count += 1
        return f"{self.prefix}{stem}{self.count}"

    def input(self, name, shape, kind=np.float32):
        info = helper.make_tensor_value_info(name, _type(kind), shape)
        self.inputs.append(info)
        return name

    def output(self, name, shape=None, kind=np.float32):
        self.outputs.append(helper.make_tensor_value_info(name, _type(kind), shape))
        return name

    def const(self, data, name=None, kind=None):
        data = np.asarray(data, kind or getattr(data, "dtype", None))
        name = name or self.name("w")
        self.weights.append(numpy_helper.from_array(data, name))
        return name

    def weight(self, *shape, scale=None, kind=np.float32):
        fan = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
        data = self.rng.normal(size=shape) * (scale or 1 / np.sqrt(fan))
        return self.const(data.astype(kind))

    def ints(self, *values):
        return self.const(np.asarray(values, np.int64))

    def op(self, op_type, *inputs, outputs=1, out=None, domain="", **attributes):
        names = [out] if isinstance(out, str) else out
        names = names or [self.name(op_type.lower()) for _ in range(outputs)]
        label = f"{self.prefix}n{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(op_type, list(inputs), names, label, domain=domain, **attributes)
        )
        return names[0] if len(names) == 1 else names

    def graph(self, name="g"):
        return helper.make_graph(self.nodes, name, self.inputs, self.outputs, self.weights)

    def model(self, opset=17, ir_version=9, domains=()):
        opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
        return helper.make_model(
            self.graph(), opset_imports=opsets, ir_version=ir_version, functions=self.functions
        )


def _type(kind):
    if isinstance(kind, int):
        return kind
    return helper.np_dtype_to_tensor_dtype(np.dtype(kind))


FLOAT16, BFLOAT16, DOUBLE = TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE

__all__ = ["BFLOAT16", "DOUBLE", "FLOAT16", "Build", "onnx"]
