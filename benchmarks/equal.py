"""How much the outputs of a rewritten model differ from those of the model as it came.

    python -m benchmarks.equal FLOAT REWRITTEN FEEDS.npz

Both run in ONNX Runtime with its own rewriting off. Prints one JSON line: nodes of both, and for
every feed the largest over its outputs of max |difference| / max |output|, or why there is none.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from benchmarks.feeds import Feed, load
from benchmarks.measure import session


def gap(old: np.ndarray, new: np.ndarray, name: str) -> float:
    """max |difference| / max |old|. Raises ValueError where the shape or type is another, what is
    finite is not so alike, or all is zero."""
    if (old.shape, old.dtype) != (new.shape, new.dtype):
        found, wanted = (f"{a.dtype}{list(a.shape)}" for a in (new, old))
        raise ValueError(f"{name} is {found}, was {wanted}")
    known = np.isfinite(old)
    if (known != np.isfinite(new)).any():
        raise ValueError(f"{name} is not finite at the same places")
    apart = np.abs(np.where(known, old, 0).astype(np.float64) - np.where(known, new, 0))
    size = np.abs(np.where(known, old, 0)).max(initial=0)
    if not size:
        raise ValueError(f"{name} is zero everywhere, which says nothing")
    return float(apart.max(initial=0) / size)


def difference(before: ort.InferenceSession, after: ort.InferenceSession, feed: Feed) -> float:
    """The largest `gap` of an output."""
    pairs = zip(before.run(None, feed), after.run(None, feed), before.get_outputs(), strict=True)
    return max(gap(np.asarray(old), np.asarray(new), info.name) for old, new, info in pairs)


def judged(before: ort.InferenceSession, after: ort.InferenceSession, feed: Feed) -> float | str:
    try:
        return difference(before, after, feed)
    except Exception as error:  # the runtime's refusals are what is asked for
        return f"breaks: {str(error).splitlines()[0][:200]}"


def node_count(model: onnx.ModelProto) -> int:
    """Nodes of the main graph and of the bodies inside it."""
    return _count(model.graph)


def _count(graph: onnx.GraphProto) -> int:
    bodies = (a.g for node in graph.node for a in node.attribute if a.HasField("g"))
    return len(graph.node) + sum(_count(body) for body in bodies)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("float", type=Path)
    parser.add_argument("rewritten", type=Path)
    parser.add_argument("feeds", type=Path)
    args = parser.parse_args()
    files = args.float, args.rewritten
    counts = [node_count(onnx.load(f, load_external_data=False)) for f in files]
    row: dict[str, object] = {"nodes_before": counts[0], "nodes": counts[1]}
    try:
        before, after = (session(file, optimise=False) for file in files)
    except Exception as error:
        row["differences"] = [f"breaks: {str(error).splitlines()[0][:200]}"]
    else:
        row["differences"] = [judged(before, after, feed) for feed in load(args.feeds)]
    print("\n" + json.dumps(row))


if __name__ == "__main__":
    main()
