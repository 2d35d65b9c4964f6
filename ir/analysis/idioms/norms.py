"""LayerNorm, RMSNorm, GroupNorm and L2 normalisation, written out as simpler ops."""

from __future__ import annotations

from collections.abc import Iterator

from ir.analysis.idioms.base import (
    Idiom,
    axes_of,
    back,
    filled_with,
    is_op,
    number,
    origin,
    other,
    producer,
    reader,
    trailing,
    varies_only_along,
)
from ir.graph import Node, Value, attribute, constant, rank, readers, scalar


def layer_or_rms_norm(anchor: Node) -> Iterator[Idiom]:
    """d / sqrt(mean(d^2) + eps) [* gain] [+ bias], from the mean of the squares.

    LayerNormalization where d = x - mean(x) over the same axes, RMSNormalization elsewhere.
    Longest first: with gain and bias, with gain, bare.
    """
    nodes: list[Node] = [anchor]
    centred = _squared(anchor.inputs[0], nodes)
    axes = axes_of(anchor, centred)
    if centred is None or axes is None:
        return
    found = _divided(anchor.outputs[0], centred, nodes)
    if found is None:
        return
    end, epsilon = found
    mean = _minus_mean(centred, axes, nodes)
    x = back(mean if mean is not None else centred, nodes)
    kind = "RMSNormalization" if mean is None else "LayerNormalization"
    attributes: dict = {"epsilon": epsilon, "stash_type": 1}
    extra: dict = {}
    if trailing(axes):
        attributes["axis"] = axes[0]
    else:
        extra["axes"] = axes
    for nodes_to_end, inputs, output in _tails(end, nodes, axes, bias=mean is not None):
        output_dtype, x_value = output.dtype, _with_dtype(x, output, nodes_to_end)
        if x_value is not None and output_dtype is not None and x_value.dtype != output_dtype:
            continue
        yield Idiom(
            kind, _unique(nodes_to_end), (x_value, *inputs), (output,), attributes, {}, extra
        )


def _unique(nodes: list[Node]) -> tuple[Node, ...]:
    return tuple({id(node): node for node in nodes}.values())


def _with_dtype(x: Value | None, output: Value, nodes: list[Node]) -> Value | None:
    """x, or the Cast of x (then outside the idiom) that has the dtype of the result."""
    if x is None or output.dtype is None or x.dtype == output.dtype:
        return x
    for node in nodes:
        if is_op(node, "Cast") and node.inputs[0] is x and node.outputs[0].dtype == output.dtype:
            nodes.remove(node)
            return node.outputs[0]
    return x


def _squared(value: Value | None, nodes: list[Node]) -> Value | None:
    """d where the value is d*d or d^2, before any Cast of d."""
    node = producer(back(value, nodes), "Pow", "Mul")
    if node is None:
        return None
    power = scalar(node.inputs[1]) if node.op_type == "Pow" else None
    if power != 2 and (node.op_type == "Pow" or node.inputs[0] is not node.inputs[1]):
        return None
    nodes.append(node)
    return node.inputs[0]


def _divided(square: Value, centred: Value, nodes: list[Node]) -> tuple[Value, float] | None:
    """(centred / sqrt(square + eps), eps): Div, or Mul by Reciprocal, 1/..., Pow(-0.5)."""
    add = reader(square, nodes, "Add")
    epsilon = None if add is None else scalar(other(add, square))
    if add is None or epsilon is None:
        return None
    root = reader(add.outputs[0], nodes, "Sqrt", "Pow")
    if root is None:
        return None
    power = 0.5 if root.op_type == "Sqrt" else scalar(root.inputs[1])
    nodes += [add, root]
    value = root.outputs[0]
    if power == 0.5:
        inverse = reader(value, nodes, "Reciprocal", "Div")
        if inverse is None:
            return None
        nodes.append(inverse)
        if is_op(inverse, "Div") and _same(inverse.inputs[0], centred, nodes):
            ends_here = origin(inverse.inputs[1]) is value
            return (inverse.outputs[0], epsilon) if ends_here else None
        if is_op(inverse, "Div") and scalar(inverse.inputs[0]) != 1:
            return None
        value = inverse.outputs[0]
    elif power != -0.5:
        return None
    product = reader(value, nodes, "Mul")
    if product is None or not _same(other(product, value), centred, nodes):
        return None
    nodes.append(product)
    return product.outputs[0], epsilon


def _same(a: Value | None, b: Value, nodes: list[Node]) -> bool:
    """Whether both are one value behind casts, or two equal subtractions."""
    a_behind, b_behind = back(a, passed := []), back(b, passed)
    if a_behind is not b_behind:
        twin, first = producer(a_behind, "Sub"), producer(b_behind, "Sub")
        if twin is None or first is None:
            return False
        pairs = zip(twin.inputs, first.inputs, strict=True)
        if any(origin(u) is not origin(v) for u, v in pairs):
            return False
        passed.append(twin)
    nodes += passed
    return True


def _minus_mean(centred: Value, axes: tuple[int, ...], nodes: list[Node]) -> Value | None:
    """x where centred = x - mean(x, axes); the nodes are noted only on success."""
    passed: list[Node] = []
    sub = producer(back(centred, passed), "Sub")
    if sub is None:
        return None
    mean = producer(back(sub.inputs[1], passed), "ReduceMean")
    x = sub.inputs[0]
    if mean is None or axes_of(mean, mean.inputs[0]) != axes:
        return None
    if back(mean.inputs[0], passed) is not back(x, passed):
        return None
    nodes += [*passed, sub, mean]
    return x


def _tails(
    end: Value, nodes: list[Node], axes: tuple[int, ...], bias: bool
) -> Iterator[tuple[list[Node], tuple[Value | None, ...], Value]]:
    """The affine tail: (nodes, (gain, bias), result), longest first."""
    options: list = [(list(nodes), (None, None), end)]
    used: list[Node] = []
    gain_node = reader(end, used, "Mul")
    if gain_node is not None and varies_only_along(gain := other(gain_node, end), axes):
        scaled = [*nodes, *used, gain_node]
        options.insert(0, (scaled, (gain, None), gain_node.outputs[0]))
        used = []
        add = reader(gain_node.outputs[0], used, "Add") if bias else None
        if add is not None:
            shift = other(add, gain_node.outputs[0])
            if varies_only_along(shift, axes):
                shifted = ([*scaled, *used, add], (gain, shift), add.outputs[0])
                options.insert(0, shifted)
    for all_nodes, inputs, result in options:
        casts = [n for n, _ in readers(result)]
        if len(casts) == 1 and is_op(casts[0], "Cast") and not result.is_graph_output():
            yield [*all_nodes, casts[0]], inputs, casts[0].outputs[0]
        yield all_nodes, inputs, result


def group_norm(anchor: Node) -> Iterator[Idiom]:
    """Reshape(x, [N, G, -1]) - InstanceNormalization - Reshape back [* gain] [+ bias]."""
    reshape, nodes = producer(anchor.inputs[0], "Reshape"), [anchor]
    plain = filled_with(anchor.inputs[1], 1) and filled_with(anchor.inputs[2], 0)
    unshape = reader(anchor.outputs[0], nodes, "Reshape")
    if reshape is None or unshape is None or not plain:
        return
    x, end = reshape.inputs[0], unshape.outputs[0]
    size = rank(x)
    ones = constant(anchor.inputs[1])
    if size is None or x is None or ones is None or x.shape != end.shape:
        return
    nodes += [reshape, unshape]
    attributes = {
        "num_groups": ones.size,
        "epsilon": attribute(anchor, "epsilon", 1e-5),
        "stash_type": 1,
    }
    flat = {1: (("Reshape", (-1,)),), 2: (("Reshape", (-1,)),)}
    for all_nodes, inputs, result in _tails(end, nodes, (1 - size,), bias=True):
        yield Idiom(
            "GroupNormalization", _unique(all_nodes), (x, *inputs), (result,), attributes, flat
        )


def l2_norm(anchor: Node) -> Iterator[Idiom]:
    """x / max(||x||, eps), x / (||x|| + eps) or x / sqrt(sum x^2 + eps), from the reduction."""
    nodes: list[Node] = [anchor]
    x = anchor.inputs[0]
    if anchor.op_type == "ReduceSum":
        x = _squared(x, nodes)
    axes = axes_of(anchor, x)
    if x is None or axes is None or len(axes) != 1:
        return
    extra: dict = {}
    value = anchor.outputs[0]
    steps = ("Sqrt", "Add", "Max", "Clip", "Expand")
    rooted = anchor.op_type == "ReduceL2"
    while (node := reader(value, nodes, *steps)) is not None:
        if node.op_type == "Sqrt" and not rooted:
            rooted = True
        elif node.op_type in ("Add", "Max", "Clip"):
            bound = number(other(node, value) if node.op_type != "Clip" else node.inputs[1])
            if bound is None or extra or (node.op_type == "Clip" and _upper(node) is not None):
                return
            place = "inside" if not rooted else "add" if node.op_type == "Add" else "floor"
            extra[f"epsilon_{place}"] = bound
        elif node.op_type != "Expand":
            return
        nodes.append(node)
        value = node.outputs[0]
    div = reader(value, nodes, "Div")
    if not rooted or div is None or origin(div.inputs[0]) is not origin(x):
        return
    attributes = {"axis": axes[0], "p": 2}
    nodes.append(div)
    yield Idiom("LpNormalization", _unique(nodes), (x,), (div.outputs[0],), attributes, {}, extra)


def _upper(clip: Node) -> float | None:
    upper = attribute(clip, "max")
    return scalar(clip.inputs[2]) if len(clip.inputs) > 2 else upper
