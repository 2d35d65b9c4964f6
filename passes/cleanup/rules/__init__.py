"""Rules of `canonicalize`: each looks at one node and says whether it rewrote it."""

from __future__ import annotations

from collections.abc import Callable

from ir.graph import Node
from passes.cleanup.dims import Dims
from passes.core import Ctx

Rule = Callable[[Node, Ctx, Dims], bool]
"""`rule(node, ctx, dims)`: True when the node was changed or is gone; it reports nothing itself."""
