"""The official backend models that ship with onnx: old opsets, stored inputs and outputs."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

from ir.capture import capture
from ir.errors import CaptureError
from tests.capture.running import assert_same, run

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
FOLDERS = ("pytorch-converted", "pytorch-operator", "simple")
MODELS = sorted(path.parent for folder in FOLDERS for path in (DATA / folder).glob("*/model.onnx"))

# What ONNX Runtime cannot do with the unchanged model either, and why.
NOT_RUN = {
    "test_PReLU_1d_multiparam": "opset 6 broadcast a slope over channels; 7 does not",
    "test_PReLU_2d_multiparam": "opset 6 broadcast a slope over channels; 7 does not",
    "test_PReLU_3d_multiparam": "opset 6 broadcast a slope over channels; 7 does not",
    "test_gradient_of_add": "a preview training operator without a kernel",
    "test_gradient_of_add_and_mul": "a preview training operator without a kernel",
}


def read(path: Path) -> onnx.ModelProto:
    """Opset 6, which most of these have, is onnx's own converter's to bring to 7."""
    model = onnx.load(path / "model.onnx")
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if versions.get("", 7) < 7:
        model = onnx.version_converter.convert_version(model, 7)
    return model


def stored(folder: Path, kind: str) -> list[np.ndarray]:
    count = len(list(folder.glob(f"{kind}_*.pb")))
    return [
        numpy_helper.to_array(onnx.load_tensor(folder / f"{kind}_{index}.pb"))
        for index in range(count)
    ]


def test_enough_models_are_run():
    assert len(MODELS) >= 135


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.name)
def test_same_outputs_as_stored(path):
    old = read(path)
    if path.name in NOT_RUN:
        pytest.skip(NOT_RUN[path.name])
    new = capture(old)
    for folder in path.glob("test_data_set_*"):
        names = [value.name for value in new.graph.inputs]
        feeds = dict(zip(names, stored(folder, "input"), strict=True))
        try:
            run(old, feeds)
        except Exception as error:
            if "Locale" not in str(error):
                raise
            pytest.skip("StringNormalizer needs a locale that this machine lacks")
        assert_same(run(new, feeds), stored(folder, "output"), rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_every_official_node_test_is_captured_or_refused_for_a_reason():
    """The node tests at today's opset: what was valid stays valid and computes the same."""
    refused: dict[str, str] = {}
    compared = 0
    for case in collect_testcases(None):
        try:
            model = capture(case.model)
        except CaptureError as error:
            refused[case.name] = str(error)
            continue
        compared += _same_as_before(case, model)
    reasons = ("changed this operator after opset 25", "the model has opset 1;")
    assert {n: why for n, why in refused.items() if not any(r in why for r in reasons)} == {}
    assert len(refused) < 0.25 * compared
    assert compared > 1200


# Numbers differ before and after, and may.
RANDOM = ("dropout", "bernoulli", "random", "multinomial")
MASKED = "qk_matmul_bias_"  # a debug output: -inf from the kernel, finfo.min from the function body


def _same_as_before(case, model) -> bool:
    names = [value.name for value in case.model.graph.input]
    feeds = dict(zip(names, case.data_sets[0][0], strict=True))
    if any(word in case.name for word in (*RANDOM, MASKED)):
        return False
    try:
        before = run(case.model, feeds)
    except Exception:
        return False  # no kernel for the original: nothing to compare with
    try:
        after = run(model, feeds)
    except Exception as error:
        if "NOT_IMPLEMENTED" not in str(error):
            raise
        return False
    for got, want in zip(after, before, strict=True):
        if isinstance(want, np.ndarray):
            half = want.dtype == np.float16
            assert_same([got], [want], rtol=2e-3 if half else 1e-5, atol=1e-3 if half else 1e-6)
    return True
