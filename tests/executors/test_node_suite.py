"""Every official ONNX node test through the torch executor."""

from __future__ import annotations

import fnmatch
import tomllib
import warnings
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper

from backends.torch import Executor
from backends.torch.body import Inlined
from backends.torch.dtypes import to_numpy, to_torch
from backends.torch.fallback import Fallback
from ir.errors import BackendError

LISTED = tomllib.loads((Path(__file__).parent / "unsupported.toml").read_text())
NUMERIC = {
    getattr(onnx.TensorProto, name)
    for name in (
        *("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "BOOL", "INT8", "INT16", "INT32", "INT64"),
        *("UINT8", "UINT16", "UINT32", "UINT64"),
    )
}
HOW: dict[str, set[str]] = {}


@cache
def cases() -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        return {case.name: case for case in load_model_tests(kind="node")}


def rows_for(name: str, kind: str) -> list[dict]:
    return [
        row
        for row in LISTED[kind]
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in row["tests"])
    ]


def array(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, onnx.SequenceProto):
        return numpy_helper.to_list(value)
    if isinstance(value, onnx.OptionalProto):
        return numpy_helper.to_optional(value)
    return value


def assert_close(got: Any, expected: Any, case: Any) -> None:
    """Same type and shape; within the case's rtol, or 4 units in the last place of the largest."""
    if isinstance(expected, list | tuple):
        assert len(got) == len(expected)
        for left, right in zip(got, expected, strict=True):
            assert_close(left, right, case)
        return
    if expected is None or not isinstance(got, torch.Tensor):
        np.testing.assert_array_equal(got, expected)
        return
    wanted = to_torch(expected)
    assert got.dtype == wanted.dtype
    assert got.shape == wanted.shape
    if not got.is_floating_point():
        np.testing.assert_array_equal(to_numpy(got), to_numpy(wanted))
        return
    left, right = to_numpy(got.double()), to_numpy(wanted.double())
    if got.dtype.itemsize == 1:  # 8 and 4 bit floats: codes, so bit for bit
        np.testing.assert_array_equal(left, right)
        return
    finite = np.abs(right[np.isfinite(right)])
    ulps = 4 * torch.finfo(got.dtype).eps * (finite.max() if finite.size else 0.0)
    np.testing.assert_allclose(left, right, rtol=case.rtol, atol=max(case.atol, ulps))


def executed(case: Any, check: Any) -> None:
    """Run every data set of a case and note how its nodes ran."""
    model = ir.from_proto(case.model)
    executor = Executor(model)
    names_in = [value.name for value in model.graph.inputs]
    names_out = [value.name for value in model.graph.outputs]
    for inputs, outputs in case.data_sets:
        results = executor.run(dict(zip(names_in, map(array, inputs), strict=False)))
        for name, expected in zip(names_out, map(array, outputs), strict=True):
            check(results[name], expected, case)
    HOW[case.name] = how(executor)


def how(executor: Executor) -> set[str]:
    kinds = set()
    for step in executor.program.steps:
        made = step.fn.made.values() if isinstance(step.fn, Fallback) else ()
        kinds |= {"body" if isinstance(m, Inlined) else "runtime" for m in made}
    return kinds or {"native"}


def assert_random(got: torch.Tensor, expected: Any, case: Any) -> None:
    wanted = to_torch(expected)
    assert got.dtype == wanted.dtype
    assert got.shape == wanted.shape
    (row,) = rows_for(case.name, "random")
    values = row.get("values")
    if values is None:  # dropout: every element is dropped or scaled as in the expected output
        live = wanted != 0
        both = live & (got != 0)
        assert both.any()
        np.testing.assert_allclose(to_numpy(got)[both], to_numpy(wanted)[both], rtol=1e-6)
    else:
        assert set(np.unique(to_numpy(got)).tolist()) <= set(values)


def check_case(case: Any) -> None:
    if rows_for(case.name, "random"):
        executed(case, assert_random)
        return
    listed = rows_for(case.name, "error")
    if not listed:
        executed(case, assert_close)
        return
    (row,) = listed
    try:
        executed(case, assert_close)
    except BackendError as error:
        assert row["says"] in str(error)  # noqa: PT017
        HOW[case.name] = {"listed"}
    else:
        assert row.get("where"), f"{case.name} passes: take it off unsupported.toml"


def families() -> list[str]:
    """The names' first two words: enough groups to show which ops fail, few enough to be quick."""
    return sorted({"_".join(name.split("_")[:2]) for name in cases()})


@pytest.mark.parametrize("family", families())
def test_node(family: str) -> None:
    group = [case for name, case in cases().items() if "_".join(name.split("_")[:2]) == family]
    failures = {}
    for case in group:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                check_case(case)
        except (AssertionError, BackendError) as error:
            failures[case.name] = " ".join(str(error).split())[:300]
    assert not failures


def test_every_listed_pattern_names_a_test() -> None:
    for row in (*LISTED["error"], *LISTED["random"]):
        assert row["reason"]
        for pattern in row["tests"]:
            assert fnmatch.filter(cases(), pattern), pattern


def test_a_wrong_number_is_noticed() -> None:
    case = cases()["test_softmax_axis_0"]
    ((_, (expected,)),) = case.data_sets
    right = to_torch(expected)
    assert_close(right, expected, case)
    with pytest.raises(AssertionError):
        assert_close(right * 1.002, expected, case)
    with pytest.raises(AssertionError):
        assert_close(torch.zeros_like(right), expected, case)


def test_at_least_nine_tenths_of_the_numeric_tests_pass() -> None:
    """Runs after the families; prints how the tests passed."""
    missing = [case for name, case in cases().items() if name not in HOW]
    for case in missing:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_case(case)
    numeric = [name for name, case in cases().items() if is_numeric(case)]
    passed = [name for name in numeric if HOW[name] != {"listed"}]
    for title, names in (("all", list(cases())), ("numeric", numeric)):
        table = Counter("+".join(sorted(HOW[name])) for name in names)
        print(f"{title}: {len(names)} tests, {dict(table.most_common())}")
    assert len(passed) >= 0.9 * len(numeric)


def is_numeric(case: Any) -> bool:
    """Only tensors of ordinary numeric types go in and out."""
    infos = (*case.model.graph.input, *case.model.graph.output)
    kinds = {info.type.tensor_type.elem_type for info in infos if info.type.HasField("tensor_type")}
    return all(info.type.HasField("tensor_type") for info in infos) and kinds <= NUMERIC
