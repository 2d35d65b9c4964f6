"""Bring a model from any opset between 7 and the installed onnx's newest to the working opset.

Why our own table. `onnxscript.version_converter` starts at opset 18 and skips, with a log line,
what it cannot do (attribute references in functions, GroupNormalization without shapes).
`onnx.version_converter` (1.23) needs the whole model in one serialised proto, so 2 GB at most and
every weight copied; leaves local functions at their old opset; refuses `spatial=0`; and of the
cases in `tests/capture/old_nodes.txt` turns five into models that compute something else (Hardmax,
Upsample and Resize-10 in linear mode, Resize-10 when it shrinks), as it does GroupNormalization-18.
The changes between 7 and 25 are few enough to be said once, here.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from ir.capture.adapters import ADAPTERS, Context
from ir.capture.infer import infer_quietly
from ir.capture.names import bodies, nested, values
from ir.errors import CaptureError

WORKING_OPSET = 25
WORKING_IR_VERSION = 13
OLDEST_OPSET = 7

# Adapters that write better nodes, or only can write any, when types and ranks are known.
_WANT_TYPE = frozenset({"Clip", "Pad"})
_WANT_SHAPE = frozenset({"Softmax", "LogSoftmax", "Hardmax", "GroupNormalization"})


def upgrade(model: ir.Model) -> None:
    """Rewrite `model` in place for the working opset: main graph, bodies and local functions.

    A function whose body reads its attributes in an operator that changed is inlined first.
    Other domains are left as they are. Raises CaptureError for opsets below 7, operators that the
    opset does not have, and newer opsets that changed an operator the model uses.
    """
    local = frozenset(model.functions)
    for holder in (model.graph, *model.functions.values()):
        _normalise_domain(holder.opset_imports)
        for node in _nodes(holder):
            if node.domain == "ai.onnx":
                node.domain = ""
    main = _opset_of(model.graph, "the model", local)
    _inline_parametric(model)
    if any(_wants_inference(node, main) for node in _nodes(model.graph)):
        infer_quietly(model)
    used = {
        value.name or ""
        for holder in _holders(model)
        for graph in nested(holder)
        for value in values(graph)
    }
    for holder in _holders(model):
        in_function = isinstance(holder, ir.Function)
        where = f"function '{holder.name}'" if in_function else "the model"
        version = _opset_of(holder, where, local)
        graph = holder.graph if isinstance(holder, ir.Function) else holder
        _upgrade_graph(graph, version, used, local, in_function=in_function)
        holder.opset_imports[""] = WORKING_OPSET
    model.ir_version = WORKING_IR_VERSION


def _upgrade_graph(
    graph: ir.Graph, version: int, used: set[str], local: frozenset, *, in_function: bool
) -> None:
    context = Context(graph, used, in_function=in_function)
    for node in tuple(graph):
        for body in bodies(node):
            _upgrade_graph(body, version, used, local, in_function=False)
        if node.domain == "" and node.op_identifier() not in local:
            _upgrade_node(node, version, context)


def _upgrade_node(node: ir.Node, version: int, context: Context) -> None:
    """Apply the adapters for every change of the node's operator after `version`, in order."""
    _check_known(node, version)
    if node.op_type == "MeanVarianceNormalization" and "axes" not in node.attributes:
        # Inference goes through the operator's function body, which forgets the default.
        node.attributes.add(ir.AttrInt64s("axes", [0, 2, 3]))
    if version > WORKING_OPSET:
        return
    while True:
        pending = [change for change in ADAPTERS.get(node.op_type, ()) if change > version]
        if not pending or node.graph is None:
            return
        version = min(pending)
        try:
            ADAPTERS[node.op_type][version](node, context)
        except CaptureError:
            raise
        except Exception as error:  # a node its own opset forbids: inputs or attributes missing
            why = str(error) or type(error).__name__
            raise CaptureError(
                f"the node does not fit its operator's definition: {why}",
                at=node,
                hint="check the model with onnx.checker",
            ) from error


def _wants_inference(node: ir.Node, version: int) -> bool:
    """An adapter is due that would have to work around a type or shape not yet written down."""
    if node.domain != "" or all(change <= version for change in ADAPTERS.get(node.op_type, ())):
        return False
    data = node.inputs[0] if node.inputs else None
    if data is None or node.op_type not in _WANT_TYPE | _WANT_SHAPE:
        return False
    return data.dtype is None if node.op_type in _WANT_TYPE else data.shape is None


def _check_known(node: ir.Node, version: int) -> None:
    since = since_version(node.op_type, version)
    if since is None:
        raise CaptureError(
            f"unknown operator in the default domain at opset {version}",
            at=node,
            hint="give it a domain of its own and a function body, or export with a newer opset",
        )
    if version > WORKING_OPSET and since != since_version(node.op_type, WORKING_OPSET):
        raise CaptureError(
            f"opset {version} changed this operator after opset {WORKING_OPSET}",
            at=node,
            hint=f"export the model with opset {WORKING_OPSET} or lower",
        )


@cache
def since_version(op: str, version: int) -> int | None:
    """The opset that brought the schema of `op` in force at `version`; None for no such op."""
    try:
        return onnx.defs.get_schema(op, max_inclusive_version=version, domain="").since_version
    except onnx.defs.SchemaError:
        return None


def _opset_of(holder: ir.Graph | ir.Function, where: str, local: frozenset) -> int:
    version = holder.opset_imports.get("")
    if version is None:
        for node in _nodes(holder):
            if node.domain == "" and node.op_identifier() not in local:
                raise CaptureError(f"{where} uses standard operators but imports no opset", at=node)
        return WORKING_OPSET
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= version <= newest:
        raise CaptureError(
            f"{where} has opset {version}; supported are {OLDEST_OPSET} to {newest}",
            hint="export it again, or convert it with onnx.version_converter first",
        )
    return version


def _normalise_domain(imports: dict[str, int]) -> None:
    """`ai.onnx` is the other name of the default domain."""
    if "ai.onnx" in imports:
        version = imports.pop("ai.onnx")
        if imports.setdefault("", version) != version:
            raise CaptureError("the model imports two different opsets of the default domain")


def _inline_parametric(model: ir.Model) -> None:
    """Inline the functions that pass an attribute of theirs to an operator that changed."""

    def parametric(function: ir.Function) -> bool:
        version = function.opset_imports.get("", WORKING_OPSET)
        return any(
            any(attribute.is_ref() for attribute in node.attributes.values())
            and any(change > version for change in ADAPTERS.get(node.op_type, ()))
            for node in _nodes(function)
            if node.domain == ""
        )

    inline = {key for key, function in model.functions.items() if parametric(function)}
    if not inline:
        return
    versions = {model.functions[key].opset_imports.get("") for key in inline}
    if versions != {model.opset_imports.get("")}:
        raise CaptureError(
            "a local function of another opset than the model's passes on its attributes",
            hint="inline the model's functions before capture",
        )
    InlinePass(lambda function: function.identifier() in inline)(model)


def _holders(model: ir.Model) -> tuple[ir.Graph | ir.Function, ...]:
    return (model.graph, *model.functions.values())


def _nodes(holder: ir.Graph | ir.Function) -> Iterator[ir.Node]:
    return iter(ir.traversal.RecursiveGraphIterator(holder))
