"""Make an ONNX Runtime session of a graph or a file, and run it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path

import numpy as np
import onnxruntime

from ir.capture.writing import to_bytes
from ir.errors import BackendError, DataError
from ir.graph import Graph

Feeds = Mapping[str, np.ndarray]
PROVIDERS = ["CPUExecutionProvider"]


class Level(Enum):
    """How far ONNX Runtime rewrites a model: not at all, all but kernels of Q/DQ, or all."""

    NONE = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    UNFUSED = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    ALL = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL


class Session:
    """A model in ONNX Runtime on the CPU. `threads` 0: as many as ONNX Runtime likes."""

    def __init__(
        self,
        model: Graph | str | os.PathLike,
        *,
        level: Level = Level.ALL,
        threads: int = 0,
        config: Mapping[str, str] | None = None,
        dump: str | os.PathLike | None = None,
    ) -> None:
        """dump: where to write the optimised model. Raises BackendError when it is refused."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.graph_optimization_level = level.value
        for key, value in (config or {}).items():
            options.add_session_config_entry(key, value)
        if dump is not None:
            options.optimized_model_filepath = os.fspath(dump)
        source = to_bytes(model) if isinstance(model, Graph) else os.fspath(Path(model))
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=PROVIDERS)
        except Exception as error:  # ONNX Runtime raises its own classes and bare RuntimeErrors
            raise BackendError(
                f"ONNX Runtime does not take the model: {_first_line(error)}",
                hint="look at it with `ptqc inspect`: an op may be unknown there",
            ) from error
        self.inputs = [value.name for value in self._session.get_inputs()]
        self.outputs = [value.name for value in self._session.get_outputs()]

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """{output: array}. Raises DataError for missing inputs, BackendError when a node fails."""
        missing = [name for name in self.inputs if name not in feeds]
        if missing:
            hint = f"the model reads {', '.join(self.inputs)}"
            raise DataError(f"no data for input {', '.join(missing)}", hint=hint)
        names = list(outputs or self.outputs)
        given = {name: np.asarray(feeds[name]) for name in self.inputs}
        try:
            values = self._session.run(names, given)
        except Exception as error:
            raise BackendError(
                f"ONNX Runtime cannot run the model: {_first_line(error)}",
                hint="look at the shapes and types of the inputs, and at the node it names",
            ) from error
        return dict(zip(names, values, strict=True))  # type: ignore[return-value]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
