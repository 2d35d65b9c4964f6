"""A small target whose kernels are those of an ordinary integer runtime."""

from backends.base import Target, Verdict

CARRIERS = ("Add", "MaxPool", "GlobalAveragePool", "Concat")


class Plain(Target):
    """MatMul and Gemm write floats, Conv writes codes, four ops carry codes."""

    name = "plain"

    def supports(self, node, activation, weight):
        if weight is not None and activation is None:
            return Verdict(node.op_type != "Conv" or weight.bits == 8, "DequantizeLinear", "8 bits")
        if node.op_type in ("MatMul", "Gemm"):
            return Verdict(True, "MatMulIntegerToFloat", limit="pairs", float_output=True)
        if node.op_type == "Conv":
            return Verdict(True, "QLinearConv", limit="pairs")
        if node.op_type in CARRIERS:
            return Verdict(True, f"QLinear{node.op_type}")
        return Verdict(False, reason=f"no integer kernel for {node.op_type}")

    def build(self, graph, **options):
        raise NotImplementedError

    def open(self, path):
        raise NotImplementedError
