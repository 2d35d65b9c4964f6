"""The graph in torch: compiled once, run many times, differentiable, streamed and cut at will."""

from backends.torch.executor import Executor

__all__ = ["Executor"]
