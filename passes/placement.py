"""Which values carry codes: a pure plan over the graph, made from what the target's kernels really
do.

A *kernel* is a linear layer that the target runs on integers. Its input needs codes; its output
does only when the kernel cannot write floats itself. A *carrier* is a node that the target can also
run on codes (Add, Concat, pooling): it is taken into the integer domain when everything it reads
and somebody who reads it is there already, for then its codes cost nothing and leaving the domain
would. Everything else stays float: quantizing every op is what loses up to 57 dB on real models
(measured on peers).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from backends.base import Target, Verdict
from ir.analysis.masks import masked_values
from ir.graph import Graph, Node, Value, constant, nodes, rank
from ir.qtype import QType

from .select import select
from .sites import SMALL_TABLE, WITH_WEIGHTS, Linear, linears, near_miss, tables

ACTIVATION = QType.parse("u8@0*f32+u8")
WEIGHT = QType.parse("i8@0x1*f32")
ACTIVATIONS_FUSED = ("Relu", "Clip")
"""Ops that a quantization behind them absorbs when the range ends where they clip."""


UNREACHED = "no calibration sample reached it (a branch that never ran?): it stays float"


NO_RUNTIME_SCALE = (
    "its kernel writes codes, so it needs a calibrated scale; with one computed at run time it is "
    "slower than the float kernel"
)


NO_TOKENS = "the rank of its input is unknown, so its tokens cannot be told apart"


@dataclass
class Plan:
    """The decision for every linear layer, and the values that carry codes."""

    kernels: dict[int, tuple[Linear, Verdict]] = field(default_factory=dict)
    """By id(node)."""
    light: dict[int, tuple[Linear, str]] = field(default_factory=dict)
    """By id(node): layers whose weight alone carries codes, and why ("": it is all they have)."""
    refused: list[tuple[Node, str]] = field(default_factory=list)
    integer: set[int] = field(default_factory=set)
    """id(node) of every node that reads and writes codes only."""
    coded: dict[int, Value] = field(default_factory=dict)
    """By id(value)."""
    why: dict[int, str] = field(default_factory=dict)
    """id(value) -> one line."""

    def code(self, value: Value, why: str) -> None:
        """Decide that a value carries codes."""
        self.coded.setdefault(id(value), value)
        self.why.setdefault(id(value), why)

    def reads_codes(self, node: Node) -> bool:
        """Whether a node wants codes of the coded values that it reads."""
        return id(node) in self.kernels or id(node) in self.integer


def plan(
    graph: Graph, target: Target, activation: QType | None, weight: QType | None,
    keep: Iterable[str] = (), *, dynamic: bool = False, carriers: bool = True,
    portable: bool = False, reached: Collection[str | None] | None = None,
) -> Plan:  # fmt: skip
    """Decide. `keep`: selectors (passes/select.py) of layers that stay float. portable: layers
    without a kernel run through the functions' bodies. `reached`: names of the values whose range
    is known; None: all are."""
    made = Plan()
    functions = {g for f in graph.functions.values() for g in (f.graph, *f.graph.subgraphs())}
    for node in nodes(graph):
        reason = near_miss(node)
        if node.graph in functions and not node.domain and node.op_type in WITH_WEIGHTS:
            reason = "it stands in a local function: put inline before"
        if reason:
            made.refused.append((node, reason))
    masked = masked_values(graph)
    sites = [site for site in linears(graph) if site.node.graph not in functions]
    kept: dict[int, str] = {}
    for text in keep:
        kept |= dict.fromkeys(select(text, [s.node for s in sites]), text)
    for site in sites:
        if id(site.node) in kept:
            made.refused.append((site.node, f"kept float by '{kept[id(site.node)]}'"))
            continue
        misfit = site.misfit(weight) if weight is not None else ""
        if misfit:
            made.refused.append((site.node, misfit))
            continue
        coded = site.qtype(weight) if weight else None
        verdict = target.supports(site.node, activation, coded)
        if portable and activation is not None and coded is not None:
            verdict = _portable(target, site, activation, coded, verdict, dynamic=dynamic)
        if not verdict.ok and verdict.weights and weight is not None:
            made.light[id(site.node)] = (site, verdict.reason)
        elif not verdict.ok:
            made.refused.append((site.node, verdict.reason))
        elif activation is not None and site.x.name in masked:
            made.refused.append((site.node, "its input carries attention-mask constants"))
        elif activation is not None and not activation.per_tensor and not rank(site.x):
            made.light[id(site.node)] = (site, NO_TOKENS)
        elif dynamic and not verdict.float_output:
            made.light[id(site.node)] = (site, NO_RUNTIME_SCALE)
        elif activation is not None and not dynamic and not _ranged(site, verdict, reached):
            made.refused.append((site.node, UNREACHED))
        else:
            made.kernels[id(site.node)] = (site, verdict)
    if weight is not None:
        _add_tables(graph, target, weight, made, keep, functions)
    if activation is None:
        return made
    for site, verdict in made.kernels.values():
        made.code(site.x, f"read by {site.node.op_type} ({verdict.kernel})")
        if not verdict.float_output and not dynamic:
            made.integer.add(id(site.node))
            made.code(fused_output(site.y), f"written by {site.node.op_type} ({verdict.kernel})")
    if carriers and not dynamic:
        _add_carriers(graph, target, activation, made, masked, reached)
    return made


def _portable(
    target: Target, site: Linear, activation: QType, weight: QType, verdict: Verdict, *,
    dynamic: bool,
) -> Verdict:  # fmt: skip
    """The kernel's verdict, or that of the functions' bodies where no kernel will do."""
    if verdict.ok and (verdict.float_output or not dynamic):
        return verdict
    body = target.body(site.node, activation, weight)
    return replace(body, reason=verdict.reason or NO_RUNTIME_SCALE) if body.ok else verdict


def _add_tables(
    graph: Graph, target: Target, weight: QType, made: Plan, keep: Iterable[str],
    functions: Collection,
) -> None:  # fmt: skip
    """Embedding tables: their numbers alone carry codes, decoded row by row as they are read."""
    found = [site for site in tables(graph) if site.node.graph not in functions]
    kept = {i: text for text in keep for i in select(text, [site.node for site in found])}
    for site in found:
        tensor = constant(site.weight)
        verdict = target.supports(site.node, None, site.qtype(weight))
        if id(site.node) in kept:
            made.refused.append((site.node, f"kept float by '{kept[id(site.node)]}'"))
        elif reason := site.misfit(weight):
            made.refused.append((site.node, reason))
        elif tensor is not None and tensor.size < SMALL_TABLE:
            reason = f"its table has {tensor.size} numbers: codes save less than their nodes cost"
            made.refused.append((site.node, reason))
        elif verdict.ok or verdict.weights:
            made.light[id(site.node)] = (site, "")
        else:
            made.refused.append((site.node, verdict.reason))


def _ranged(site: Linear, verdict: Verdict, reached: Collection[str | None] | None) -> bool:
    """Whether the ranges of all that a kernel needs as codes are known."""
    if reached is None:
        return True
    needed = [site.x] if verdict.float_output else [site.x, fused_output(site.y)]
    return all(value.name in reached for value in needed)


def fused_output(value: Value) -> Value:
    """The value behind the activation that a kernel absorbs, or the value itself."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return value
    node = next(iter(uses)).node
    if node.domain or node.op_type not in ACTIVATIONS_FUSED:
        return value
    if node.op_type == "Clip":
        low = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        if low is None or float(low.numpy()) != 0.0:
            return value
    return node.outputs[0]


def _add_carriers(
    graph: Graph, target: Target, activation: QType, made: Plan, masked,
    reached: Collection[str | None] | None,
) -> None:  # fmt: skip
    """Take carriers in, front to back until nothing changes, then drop those nobody integer
    reads."""
    possible = [
        n for n in nodes(graph)
        if id(n) not in made.kernels and target.supports(n, activation, None).ok
        and not any(v.name in masked for v in (*n.inputs, *n.outputs) if v is not None)
        and (reached is None or fused_output(n.outputs[0]).name in reached)
    ]  # fmt: skip
    taken: dict[int, Node] = {}
    ready = {id(v) for i, v in made.coded.items() if _written_in_integers(v, made, taken)}
    for node in possible:
        inputs = [v for v in node.inputs if v is not None and constant(v) is None]
        if inputs and all(id(v) in ready for v in inputs):
            taken[id(node)] = node
            ready.add(id(fused_output(node.outputs[0])))
    for node in reversed(list(taken.values())):
        value = fused_output(node.outputs[0])
        wanted = any(made.reads_codes(use.node) for use in value.uses())
        if not wanted:
            continue
        made.integer.add(id(node))
        made.code(value, f"{node.op_type} between integer nodes")


def _written_in_integers(value: Value, made: Plan, taken: dict[int, Node]) -> bool:
    producer = value.producer()
    if producer is None:
        return False
    if producer.op_type in ACTIVATIONS_FUSED and producer.inputs[0] is not None:
        producer = producer.inputs[0].producer() or producer
    return id(producer) in made.integer or id(producer) in taken


def candidates(graph: Graph, target: Target) -> list[Value]:
    """Values whose range any placement might ask for."""
    made = plan(graph, target, ACTIVATION, WEIGHT, portable=True)
    return list(made.coded.values())
