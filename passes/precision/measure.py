"""What the outputs would win if some coded layers were float: one run of the model a question."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

from backends.torch import Executor
from ir import formats, ops
from ir.edit import Edit
from ir.graph import Graph, Node, array, clone
from passes import evaluate
from passes.padding import valid_rows, without_padding
from passes.sites import Linear, linear, linears

from .free import float_weight, free_values, reads_codes


class Measure:
    """SQNR of a coded graph against the float model's outputs on a few feeds.

    `present`: mean over the outputs in dB of the graph as it is. `macs`: multiply-accumulates of
    every layer of the float model on these feeds, by its output's name.
    """

    def __init__(self, graph: Graph, teacher: Graph, probes: Sequence[Mapping]) -> None:
        self._probes = probes
        self._valid = [valid_rows(teacher, feeds) for feeds in probes]
        self._originals = {site.y.name or "": site for site in linears(teacher)}
        self._names = [
            site.y.name or "" for site in linears(graph) if ops.decode_of(site.weight) is not None
        ]
        self.macs: dict[str, int] = {}
        self._reference = self._teach(teacher)
        self._coded = graph
        self.present = self._db(graph)

    @cached_property
    def _graph(self) -> Graph:
        """The graph with its weights decoded: once, for all runs."""
        copy = clone(self._coded)
        edit = Edit(copy)
        for node in list(copy.graph.all_nodes()):
            if ops.is_op(node, "Decode"):
                _decode_now(edit, node)
        edit.finish()
        return copy

    def db(self, chosen: Collection[str], stored: Collection[str] = ()) -> float:
        """Mean SQNR in dB over the outputs with the `chosen` layers float, but for the weights of
        those `stored`."""
        copy = clone(self._graph)
        edit = Edit(copy)
        sites = {site.y.name or "": site for site in linears(copy)}
        free_values(edit, copy, [sites[name] for name in self._names], chosen)
        for name in chosen:
            site = linear_of(sites[name].node)
            if name not in stored or reads_codes(site):
                float_weight(edit, site, self._originals[name])
        edit.finish()
        return self._db(copy)

    def _db(self, graph: Graph) -> float:
        found = self._read(evaluate.outputs_of(graph, self._probes))
        return evaluate.mean_db(evaluate.sqnr(self._reference, found))

    def _teach(self, teacher: Graph) -> evaluate.Outputs:
        executor = Executor(teacher, keep_bytes=0)

        def count(name: str):
            weight = self._originals[name].weight.shape
            assert weight is not None
            outputs = int(weight[self._originals[name].output])  # type: ignore[arg-type]
            inner = math.prod(int(size) for size in weight) // max(outputs, 1)  # type: ignore[arg-type]
            return lambda y: self.macs.__setitem__(name, self.macs.get(name, 0) + y.numel() * inner)

        watch = {name: count(name) for name in self._originals}
        found = [executor.run(feeds, watch=watch) for feeds in self._probes]
        return self._read([{k: evaluate.to_numpy(v) for k, v in out.items()} for out in found])

    def _read(self, outputs: evaluate.Outputs) -> evaluate.Outputs:
        """The outputs without the rows of padding, which nobody reads."""
        return [
            {k: v if rows is None else without_padding(v, rows) for k, v in out.items()}
            for out, rows in zip(outputs, self._valid, strict=True)
        ]


def linear_of(node: Node) -> Linear:
    """The node, which is a linear layer, as it reads now."""
    site = linear(node)
    assert site is not None
    return site


def _decode_now(edit: Edit, decode: Node) -> None:
    """Put numbers in the place of a Decode of constants."""
    parts = [None if v is None else array(v) for v in decode.inputs]
    if parts[0] is None or parts[1] is None:
        return
    zero = parts[2] if len(parts) > 2 else None
    numbers = formats.decode(parts[0], parts[1], zero, ops.qtype_of(decode))
    edit.replace(decode.outputs[0], edit.constant(numbers, f"{decode.outputs[0].name}.now"))
    edit.remove(decode)
