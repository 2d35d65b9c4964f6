"""The graph in plain numpy: slow, obvious, the meaning of every op."""

from backends.reference.run import run

__all__ = ["run"]
