"""Mutants of valid models, each put through the real command, by test_fuzz.py in its own process.

    python -m tests.cli.fuzzing FOLDER FIRST LAST

prints one JSON line per mutant: {"seed", "kind", "status", "verdict", "line"}. `FOLDER` holds the
models and feeds that `prepare` writes.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import AttributeProto, TensorProto, numpy_helper

import backends
import ir
from passes.cli import main
from tests.helpers import TINY, tiny_graph

MODELS = ("mlp", "conv", "attention")
MEMORY = 12 << 30
"""Bytes of address space that a mutant may ask for."""
TOLERANCE = 2e-3
"""Of an output's largest magnitude; a mutant may amplify rounding."""
UNARY = [
    "Relu",
    "Sigmoid",
    "Tanh",
    "Neg",
    "Abs",
    "Exp",
    "Sqrt",
    "Erf",
    "Identity",
    "Softmax",
    "Floor",
]
BINARY = ["Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "MatMul", "Mod"]
Rng = np.random.Generator


def prepare(folder: Path) -> None:
    """The valid models as files, with one feed each."""
    for name in MODELS:
        ir.save(tiny_graph(name), folder / f"{name}.onnx")
        np.savez(folder / f"{name}.npz", allow_pickle=False, **TINY[name].evaluation(1)[0])


def one(rng: Rng, items):
    return items[int(rng.integers(len(items)))]


def op_type(model: onnx.ModelProto, rng: Rng) -> None:
    node = one(rng, model.graph.node)
    node.op_type = one(rng, UNARY if len(node.input) == 1 else BINARY)


def attribute(model: onnx.ModelProto, rng: Rng) -> None:
    found = [a for n in model.graph.node for a in n.attribute]
    if not found:
        return
    chosen = one(rng, found)
    if chosen.type == AttributeProto.INT:
        chosen.i = int(one(rng, [0, 1, -1, 2, 7, 1 << 40]))
    elif chosen.type == AttributeProto.INTS and chosen.ints:
        chosen.ints[int(rng.integers(len(chosen.ints)))] = int(one(rng, [0, 1, -1, 2, 5, 1 << 33]))
    elif chosen.type == AttributeProto.FLOAT:
        chosen.f = float(one(rng, [0.0, -1.0, 1e-30, 3.0, float("inf")]))
    else:
        chosen.name = "odd"


def edge(model: onnx.ModelProto, rng: Rng) -> None:
    """A node reads another value: this may make a cycle, another type, another shape."""
    values = [n for node in model.graph.node for n in (*node.input, *node.output) if n]
    node = one(rng, model.graph.node)
    if node.input:
        node.input[int(rng.integers(len(node.input)))] = one(rng, values)


def no_node(model: onnx.ModelProto, rng: Rng) -> None:
    model.graph.node.pop(int(rng.integers(len(model.graph.node))))


def order(model: onnx.ModelProto, rng: Rng) -> None:
    nodes = [model.graph.node[int(i)] for i in rng.permutation(len(model.graph.node))]
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def numbers(model: onnx.ModelProto, rng: Rng) -> None:
    """A weight's numbers: large, zero, or not numbers at all."""
    tensor = one(rng, model.graph.initializer)
    array = numpy_helper.to_array(tensor).copy()
    if array.size:
        poison = one(
            rng, [0, 1, -1, 127] if array.dtype.kind == "i" else [0.0, 1e4, np.nan, np.inf]
        )
        array.reshape(-1)[int(rng.integers(array.size))] = poison
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def size(model: onnx.ModelProto, rng: Rng) -> None:
    tensor = one(rng, model.graph.initializer)
    if tensor.dims:
        tensor.dims[int(rng.integers(len(tensor.dims)))] = int(one(rng, [0, 1, -3, 1 << 50, 17]))


def element(model: onnx.ModelProto, rng: Rng) -> None:
    tensor = one(rng, model.graph.initializer)
    tensor.data_type = one(rng, [TensorProto.INT32, TensorProto.FLOAT16, TensorProto.STRING, 99])


def opset(model: onnx.ModelProto, rng: Rng) -> None:
    model.opset_import[0].version = int(one(rng, [1, 7, 9, 13, 17, 21, 99]))


def declared(model: onnx.ModelProto, rng: Rng) -> None:
    """What the file claims of an input's or output's shape."""
    info = one(rng, [*model.graph.input, *model.graph.output, *model.graph.value_info])
    dims = info.type.tensor_type.shape.dim
    if dims:
        dims[int(rng.integers(len(dims)))].dim_value = int(one(rng, [1, 2, 3, 1 << 40]))


def names(model: onnx.ModelProto, rng: Rng) -> None:
    node = one(rng, model.graph.node)
    node.output[0] = one(rng, ["", "x", "a b\n%c", model.graph.output[0].name])


def dropped_output(model: onnx.ModelProto, rng: Rng) -> None:
    model.graph.output[0].name = one(rng, [n.output[0] for n in model.graph.node])


STRUCTURE: list[Callable[[onnx.ModelProto, Rng], None]] = [
    op_type, attribute, edge, no_node, order, numbers, size, element, opset, declared, names,
    dropped_output,
]  # fmt: skip


def flip(content: bytes, rng: Rng) -> bytes:
    """Some bytes changed, cut out or put in."""
    found = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(found)))
        match int(rng.integers(4)):
            case 0:
                found[at] ^= 1 << int(rng.integers(8))
            case 1:
                found[at] = int(rng.integers(256))
            case 2:
                del found[at : at + int(rng.integers(1, 9))]
            case _:
                found[at:at] = rng.bytes(int(rng.integers(1, 9)))
    return bytes(found)


def mutant(content: bytes, rng: Rng) -> tuple[str, bytes]:
    """(kind, bytes of a model that may be anything)."""
    if rng.random() < 0.3:
        return "bytes", flip(content, rng)
    model = onnx.ModelProto.FromString(content)
    chosen = [one(rng, STRUCTURE) for _ in range(int(rng.integers(1, 3)))]
    for change in chosen:
        change(model, rng)
    return "+".join(change.__name__ for change in chosen), model.SerializeToString()


def judge(folder: Path, seed: int) -> dict[str, object]:
    """Put mutant number `seed` through the command and look at what came out."""
    rng = np.random.default_rng(seed)
    name = MODELS[seed % len(MODELS)]
    kind, content = mutant((folder / f"{name}.onnx").read_bytes(), rng)
    place, out = folder / "mutant.onnx", folder / "out"
    place.write_bytes(content)
    shutil.rmtree(out, ignore_errors=True)
    recipe = "clean" if rng.random() < 0.6 else one(rng, ["w8a16", "w8a8_dynamic", "w8a8"])
    arguments = ["quantize", str(place), "-r", recipe, "-o", str(out)]
    if recipe != "w8a16":
        arguments += ["--calib", str(folder / f"{name}.npz")]
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = main(arguments)
    lines = [w for w in said.getvalue().splitlines() if not w.startswith("ptqc: warning:")]
    told = {"seed": seed, "kind": kind, "recipe": recipe, "status": status, "line": " ".join(lines)}
    if status:
        clean = status != 1 and len(lines) == 1 and not out.exists()
        return told | {"verdict": "refused" if clean else "DEFECT"}
    feeds = dict(np.load(folder / f"{name}.npz"))
    return told | {"verdict": verdict(place, out, feeds, exact=recipe == "clean")}


def verdict(place: Path, out: Path, feeds: dict[str, np.ndarray], *, exact: bool) -> str:
    """What ONNX Runtime computes of the mutant itself decides, where it takes it.

    Its own optimizer is not always right for odd numbers, so either of its levels will do.
    """
    levels = onnxruntime.GraphOptimizationLevel
    tried = [outputs(place, feeds, v) for v in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_ALL)]
    wanted = [one for one in tried if one is not None]
    if not wanted:
        return "unjudged"  # nobody else can tell what is right
    found = list(backends.load(out).run(feeds, threads=1).values())
    told = min((differs(one, found, exact=exact) for one in wanted), key=bool)
    return told or ("right" if exact else "quantized")


def outputs(place: Path, feeds: dict[str, np.ndarray], level) -> list[np.ndarray] | None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(str(place), options)
        return session.run(None, {value.name: feeds[value.name] for value in session.get_inputs()})
    except Exception:
        return None


def differs(wanted: list[np.ndarray], found: list[np.ndarray], *, exact: bool) -> str:
    """How, or nothing."""
    if len(found) != len(wanted):
        return "WRONG: other outputs"
    for a, b in zip(wanted, found, strict=True):
        if a.shape != b.shape:
            return f"WRONG: shape {b.shape}, not {a.shape}"
        finite = np.isfinite(a)
        if exact and not np.array_equal(finite, np.isfinite(b)):
            return "WRONG: other values are finite"
        if exact and finite.any():
            largest = float(np.abs(a[finite]).max())
            gap = float(np.abs(a[finite].astype(np.float64) - b[finite]).max())
            if gap > TOLERANCE * largest + 1e-6:
                return f"WRONG: differs by {gap:.3g} of {largest:.3g}"
    return ""


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for number in range(int(sys.argv[2]), int(sys.argv[3])):
        print(json.dumps(judge(Path(sys.argv[1]), number)), flush=True)
