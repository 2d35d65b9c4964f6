"""The graph: capture it, look at it, check it, edit it. `ir.Graph` is `onnx_ir.Model`.

graph = ir.capture("model.onnx")        # or a torch module with example inputs, a ModelProto, ...
print(ir.show(graph))                   # one value a line; ir.parse reads it back
ir.verify(graph)                        # raises VerifyError with node, cause and remedy
ir.save(graph, "out.onnx")              # atomic
"""

from .capture import capture, save
from .errors import PtqcError
from .graph import Graph, Node, Value, clone
from .qtype import QType
from .text import parse, show
from .verify import Stage, verify

__all__ = [
    "Graph", "Node", "PtqcError", "QType", "Stage", "Value",
    "capture", "clone", "parse", "save", "show", "verify",
]  # fmt: skip
