"""What values of the student mean for the model's outputs, on the batches that judge."""

from __future__ import annotations

from typing import Any

import torch

from calib.replay.loop import judges
from calib.replay.loss import mean_square
from calib.replay.stream import Replay, Tensors

TINY = 1e-30
"""Power of an output that is always zero: its error counts as it is."""


class Outputs:
    """The student's float outputs against the teacher's, on the held-out batches of a replay.

    A region's own error says little of the outputs where later layers mend or magnify it: what was
    learned for a region counts as a gain only when neither error rises.
    """

    def __init__(self, replay: Replay, held: float) -> None:
        self.replay = replay
        self.chosen = judges(len(replay.feeds), held)
        with torch.no_grad():
            self.targets = [self._floats(replay.teacher.run(replay.feeds[i])) for i in self.chosen]

    def error(self, values: Tensors) -> float:
        """Mean over outputs and batches of squared error over power, with `values` in place of the
        student's own beside what is settled."""
        student, total, count = self.replay.student, 0.0, 0
        given = {**self.replay.settled, **values}
        known = student.graph.graph.initializers
        params = {k: v for k, v in given.items() if k in known}
        cut = {k: v for k, v in given.items() if k not in known}
        part = student.region((*student.inputs, *cut), student.outputs) if cut else student
        with torch.no_grad():
            for i, target in zip(self.chosen, self.targets, strict=True):
                found = part.run({**self.replay.feeds[i], **cut}, params=params)
                for (name, t), output in zip(target.items(), map(found.get, target), strict=True):
                    assert output is not None, name
                    rows = self.replay.rows[i]
                    power = mean_square(torch.zeros_like(t), t, rows).item()
                    total += mean_square(output, t, rows).item() / max(power, TINY)
                    count += 1
        return total / max(count, 1)

    def accepts(self, values: Tensors) -> bool:
        """Whether the outputs do not get worse than with what is settled so far. Nothing is kept
        from region to region, so that a run that was stopped decides as one that was not."""
        return self.error(values) <= self.error({})

    def _floats(self, found: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {
            name: value.detach() for name, value in found.items()
            if isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel()
        }  # fmt: skip
