"""Vectors of channels that a matrix may map as a whole: an orthogonal one where a norm reads them,
any invertible one where none does.

`ir/analysis/streams` is about maps of single channels; here whole vectors go from the constants
that write them to those that contract them, or leave and enter by an `Edge` where a product has to
stay in the graph.
"""

from .streams import attention_streams, centred_streams, matrix_stream, residual_streams
from .walk import Edge, MatrixPort, MatrixStream

__all__ = [
    "Edge",
    "MatrixPort",
    "MatrixStream",
    "attention_streams",
    "centred_streams",
    "matrix_stream",
    "residual_streams",
]
