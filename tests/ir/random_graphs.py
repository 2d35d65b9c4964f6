"""Any model at all, well formed but meaningless: for the text form to print and read back."""

import numpy as np
import onnx_ir
from hypothesis import strategies as st

from ir.graph import BY, IR_VERSION, OPSET

NAME = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8)
DTYPES = [kind for kind in onnx_ir.DataType if kind.name not in ("UNDEFINED", "STRING")]
FLOAT = st.floats(width=32)
ATTRIBUTES = {
    "INT": st.integers(-(1 << 63), (1 << 63) - 1),
    "FLOAT": FLOAT,
    "STRING": NAME | st.just(""),
    "INTS": st.lists(st.integers(-5, 5), max_size=3),
    "FLOATS": st.lists(FLOAT, max_size=3),
    "STRINGS": st.lists(NAME, max_size=3),
}
DIM = st.none() | st.integers(0, 9) | NAME


@st.composite
def tensors(draw):
    dtype = draw(st.sampled_from(DTYPES))
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
    raw = draw(st.integers(0, 1 << 30))
    rng = np.random.default_rng(raw)
    if dtype == onnx_ir.DataType.BOOL:
        array = rng.integers(0, 2, shape).astype(bool)
    elif draw(st.booleans()) and dtype.bitwidth % 8 == 0 and dtype.bitwidth <= 64:
        bits = rng.integers(0, 1 << 8, (*shape, dtype.bitwidth // 8), dtype=np.uint8)
        array = np.ascontiguousarray(bits).view(dtype.numpy()).reshape(shape)  # NaN payloads, too
    else:
        array = (rng.normal(size=shape) * 3).astype(dtype.numpy())
    return onnx_ir.Tensor(array, dtype=dtype)


@st.composite
def types(draw):
    kind = onnx_ir.TensorType(draw(st.sampled_from([*DTYPES, onnx_ir.DataType.STRING])))
    for wrap in draw(
        st.lists(st.sampled_from([onnx_ir.SequenceType, onnx_ir.OptionalType]), max_size=2)
    ):
        kind = wrap(kind)
    shape = draw(st.none() | st.lists(DIM, max_size=3))
    return draw(st.sampled_from([kind, kind, None])), None if shape is None else onnx_ir.Shape(
        shape
    )


class Maker:
    """Draws one model with unique value names."""

    def __init__(self, draw):
        self.draw = draw
        self.used = set()

    def value(self, **fields):
        name = self.draw(NAME)
        while name in self.used:
            name += "'"
        self.used.add(name)
        kind, shape = self.draw(types())
        if kind is None:
            shape = None  # a proto cannot say a shape without a type
        return onnx_ir.Value(name=name, type=kind, shape=shape, **fields)

    def constant(self):
        tensor = self.draw(tensors())
        value = self.value(const_value=tensor)
        if self.draw(st.booleans()):
            value.type, value.shape = onnx_ir.TensorType(tensor.dtype), onnx_ir.Shape(tensor.shape)
        tensor.name = value.name
        return value

    def attribute(self, name, visible, depth):
        kind = self.draw(
            st.sampled_from([*ATTRIBUTES, "TENSOR", "TYPE_PROTO"] + ["GRAPH"] * (depth < 2))
        )
        if kind == "GRAPH":
            return onnx_ir.AttrGraph(name, self.graph(visible, depth + 1))
        if kind == "TENSOR":
            tensor = self.draw(tensors())
            tensor.name = self.draw(st.sampled_from(["", "t", "a b"]))
            return onnx_ir.AttrTensor(name, tensor)
        if kind == "TYPE_PROTO":
            wanted = self.draw(types().filter(lambda found: found[0] is not None))
            return onnx_ir.AttrTypeProto(name, onnx_ir.TypeAndShape(*wanted))
        return onnx_ir.Attr(name, onnx_ir.AttributeType[kind], self.draw(ATTRIBUTES[kind]))

    def node(self, visible, depth):
        draw = self.draw
        inputs = draw(st.lists(st.sampled_from([None, *visible]), max_size=3))
        outputs = [self.value() for _ in range(draw(st.integers(0, 3)))]
        if outputs and draw(st.booleans()):
            outputs.insert(0, onnx_ir.Value(name=""))
        names = draw(st.lists(NAME, max_size=3, unique=True))
        attributes = [self.attribute(name, visible, depth) for name in names]
        meta = draw(st.dictionaries(st.sampled_from([BY, "ptqc.x"]), NAME, max_size=2))
        domain, op_type = draw(st.sampled_from(["", "com.microsoft", "odd one", "a"])), draw(NAME)
        return onnx_ir.Node(
            domain, op_type, inputs, attributes, outputs=outputs, name=draw(NAME),
            metadata_props=meta, overload=draw(st.just("") | NAME),
        )  # fmt: skip

    def graph(self, outer, depth):
        inputs = [self.value() for _ in range(self.draw(st.integers(0, 2)))]
        constants = [self.constant() for _ in range(self.draw(st.integers(0, 2)))]
        own, nodes = [*inputs, *constants], []
        for _ in range(self.draw(st.integers(0, 4 - depth))):
            node = self.node([*outer, *own], depth)
            own += [value for value in node.outputs if value.name]
            nodes.append(node)
        outputs = self.draw(st.lists(st.sampled_from(own), max_size=2, unique=True)) if own else []
        name = self.draw(st.just("") | NAME)
        return onnx_ir.Graph(inputs, outputs, nodes=nodes, initializers=constants, name=name)


@st.composite
def models(draw):
    graph = Maker(draw).graph([], 0)
    domains = {node.domain for node in graph.all_nodes()}
    graph.opset_imports.update(
        {"": draw(st.sampled_from([OPSET, 17])), **{d: 1 for d in domains if d}}
    )
    version = draw(st.sampled_from([IR_VERSION, 9]))
    return onnx_ir.Model(
        graph, ir_version=version, producer_name=draw(st.sampled_from(["", "p q"]))
    )
