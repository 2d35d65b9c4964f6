"""The ops by family; importing this package fills the table."""

from backends.torch.ops import (  # noqa: F401
    cast,
    conv,
    elementwise,
    index,
    linear,
    norm,
    pool,
    quantize,
    random,
    recurrent,
    reduce,
    resize,
    sequence,
    shape,
    signal,
)
