"""ONNX Runtime on the CPU as a target: the kernels it has, measured on version 1.32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from backends.artifact import Artifact, describe
from backends.base import Target, Verdict
from ir.graph import Graph, Node, attribute
from ir.qtype import QType

from .bench import latency
from .check import kernels
from .linear import WEIGHTS
from .lower import CARRIERS, LINEAR, lower
from .saturation import depthwise
from .session import Session
from .sites import LOADED
from .token import is_token
from .weight_only import LEAST_BLOCK, PACKED_BITS

STEM = 4
"""Up to this many input channels a convolution is a stem: the float kernel reads NCHW as it is
(measured 0.75 against 0.80 of the whole model's time, and 0.3 to 0.8 dB)."""
PAIRS = "pairs"
"""The rule `|w0 + w1| <= 128` on neighbouring codes of one sign (backends/ort/saturation.py)."""


class Ort(Target):
    """u8 values of one scale a tensor or i8 of one a token; symmetric weights of up to 8 bits with
    one scale an output."""

    name: ClassVar[str] = "ort"

    def supports(self, node: Node, activation: QType | None, weight: QType | None) -> Verdict:
        if node.domain:
            return Verdict(False, reason=f"ops of domain '{node.domain}' are run as they are")
        token = activation is not None and is_token(activation)
        tensor = activation is not None and activation.element == "u8" and activation.per_tensor
        if activation is not None and not (token or tensor):
            reason = (
                "fast kernels read u8 values of one scale (u8@0*f32+u8), or i8 with one a token "
                f"computed at run time (i8@1x0*f32), not {activation}"
            )
            return Verdict(False, reason=reason)
        if token and node.op_type not in ("MatMul", "Gemm"):
            reason = (
                f"{node.op_type} mixes what has scales of its own: give values one (u8@0*f32+u8)"
            )
            return Verdict(False, reason=reason, weights=node.op_type in LINEAR)
        if weight is None:
            return _carrier(node, activation)
        if node.op_type not in LINEAR:
            reason = f"{node.op_type} has no kernel with a stored weight"
            return Verdict(False, reason=reason, weights=True)
        if activation is None:
            return _weight_only(node, weight)
        return _integer(node, weight)

    def build(self, graph: Graph, **options) -> Artifact:
        """Lower `graph`, or the result of `passes.run`; look up in ONNX Runtime what became of it.

        options: `pipeline` and `seed` for the manifest (a result brings its own). Raises
        BackendError when ONNX Runtime refuses the model.
        """
        result = graph
        if not isinstance(graph, Graph):
            graph = graph.graph
        made = lower(graph)
        found = kernels(made)
        return Artifact(describe(self.name, result, graph, found, **options), made.graph)

    def seconds(self, graphs: Sequence[Graph], feeds: Mapping[str, np.ndarray]) -> list[float]:
        built = [lower(graph).graph for graph in graphs]
        return [ms / 1e3 for ms in latency(built, feeds).milliseconds]

    def open(self, model, threads: int = 0) -> Session:
        return Session(model, threads=threads)


def _carrier(node: Node, activation: QType | None) -> Verdict:
    if activation is None:
        return Verdict(False, reason="nothing is coded")
    if node.op_type in CARRIERS:
        return Verdict(True, CARRIERS[node.op_type])
    return Verdict(False, reason=f"ONNX Runtime has no integer {node.op_type}")


def _weight_only(node: Node, weight: QType) -> Verdict:
    """Always possible: packed where that is faster, else decoded when the model is loaded."""
    if weight.integer and weight.bits in PACKED_BITS and node.op_type != "Conv":
        cut = max(weight.block)
        if cut <= 1 or (LEAST_BLOCK <= cut <= 256 and cut & (cut - 1) == 0):
            return Verdict(True, "MatMulNBits", float_output=True)
    return Verdict(True, LOADED, float_output=True)


def _integer(node: Node, weight: QType) -> Verdict:
    if weight.element not in WEIGHTS or weight.zero is not None:
        kinds = ", ".join(WEIGHTS)
        reason = f"integer kernels read symmetric {kinds} weights (i8@0x1*f32), not {weight}"
        return Verdict(False, reason=reason)
    stored = node.inputs[1]
    shape = tuple(stored.shape) if stored is not None and stored.shape is not None else ()
    output = 0 if node.op_type == "Conv" or attribute(node, "transB", 0) else 1
    if not weight.per_tensor and weight.axis != output:
        return Verdict(False, reason=f"integer kernels read one scale per output, not {weight}")
    limit = PAIRS if weight.element == "i8" else ""
    if node.op_type != "Conv":
        if len(shape) != 2:
            return Verdict(False, reason="the weight is not a matrix", weights=True)
        return Verdict(True, "MatMulIntegerToFloat", limit=limit, float_output=True)
    if _pointlike(node):
        reason = "the map is one pixel: loading the weight as float is as fast and exact"
        return Verdict(False, reason=reason, weights=True)
    if not weight_groups(node) and shape and isinstance(shape[1], int) and shape[1] <= STEM:
        reason = f"a first convolution of {shape[1]} channels is faster and exact in float"
        return Verdict(False, reason=reason)
    free = bool(shape) and depthwise(shape, attribute(node, "group", 1))  # type: ignore[arg-type]
    return Verdict(True, "QLinearConv", limit="" if free else limit)


def weight_groups(node: Node) -> bool:
    return attribute(node, "group", 1) > 1


def _pointlike(node: Node) -> bool:
    """Whether a Conv reads a map of one pixel (behind a global pooling)."""
    x = node.inputs[0]
    if x is None or x.shape is None:
        return False
    return all(size == 1 for size in list(x.shape)[2:])
