"""The float models that are measured, as ONNX files with calibration and test feeds beside them.

They are written once into the cache (`.bench/cases`, or under `PTQC_BENCH`). `digits_*` come from
the folder of shared data, `PTQC_SHARED` or `../shared`; a case whose data is absent is left out
with the reason.
"""

from __future__ import annotations

import importlib
import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import feeds
from ir.errors import DataError

ROOT = Path(__file__).parents[1]
CACHE = Path(os.environ.get("PTQC_BENCH", ROOT / ".bench")).resolve()
SHARED = Path(os.environ.get("PTQC_SHARED", ROOT.parent / "shared"))


@dataclass(frozen=True)
class Case:
    """One model: how many calibration feeds and test feeds, and the metric of its task."""

    name: str
    calibration: int
    test: int
    metric: str | None = None
    mask: str | None = None
    """An input that is zero where the outputs are padding, which no user reads."""
    transformer: bool = False
    """Whether a peer that asks is told that this is a transformer."""
    fold: bool = True
    """Whether the exporter may fold constants; off, weights reach MatMul through Transpose."""

    @property
    def folder(self) -> Path:
        return CACHE / "cases" / self.name

    @property
    def model(self) -> Path:
        return self.folder / "model.onnx"

    def feeds(self, kind: str) -> Path:
        """`calib` or `test`; `sizes` for `cleanup.py`."""
        return self.folder / f"{kind}.npz"


CASES = {
    case.name: case
    for case in (
        Case("digits_cnn", 100, 600, "accuracy"),
        Case("digits_vit", 100, 600, "accuracy", transformer=True),
        Case("digits_vit_outlier", 100, 600, "accuracy", transformer=True),
        Case("minilm", 24, 24, mask="attention_mask", transformer=True),
        Case("ppocr_det", 16, 16, "mask_iou"),
        Case("resnet18", 24, 24, "agreement"),
        Case("mobilenetv2", 24, 24, "agreement"),
        Case("efficientnet_lite0", 32, 32, "agreement"),
        Case("terrain_unet", 8, 8),
        Case("whisper_encoder", 8, 4, transformer=True),
        Case("big24", 8, 4, "agreement", transformer=True, fold=False),
    )
}
GRAPHS = {
    name: Case(name, 0, 0)
    for name in (
        "fashion_cnn",
        "fashion_vit",
        "dit",
        "whisper_cross",
        "whisper_decoder",
        "smollm2_off_grid",
    )
}
"""Models of which only the graph is looked at (`cleanup.py`): no calibration and test feeds."""


def prepare(case: Case) -> Case:
    """Writes the files of a case that are not there yet. Raises DataError without its data."""
    if (case.folder / "done").exists():
        return case
    case.folder.mkdir(parents=True, exist_ok=True)
    if case.name.startswith("digits_"):
        _digits(case)
    else:
        _reference(case)
    (case.folder / "done").touch()
    return case


def _digits(case: Case) -> None:
    folder = SHARED / "data" / "digits"
    if not folder.is_dir():
        raise DataError("no digits data", at=str(folder), hint="set PTQC_SHARED")
    shutil.copy(folder / f"{case.name}.onnx", case.model)
    with np.load(folder / "digits_calib_test.npz") as data:
        images, labels = data["x_test"], data["y_test"]
        calibration = [{"x": image[None]} for image in data["calib"][: case.calibration]]
    test = [{"x": images[i : i + 20], "labels": labels[i : i + 20]}
            for i in range(0, case.test, 20)]  # fmt: skip
    feeds.save(case.feeds("calib"), calibration)
    feeds.save(case.feeds("test"), test)


def _reference(case: Case) -> None:
    import torch

    model = importlib.import_module(f"models.{case.name}")
    if case.calibration:
        feeds.save(case.feeds("calib"), model.calibration(case.calibration))
        feeds.save(case.feeds("test"), model.evaluation(case.test))
    net = model.load()
    if not isinstance(net, torch.nn.Module):
        shutil.copy(net, case.model)
        return
    axes = _axes(model.DYNAMIC)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's advice
        torch.onnx.export(
            net, model.example(), case.model, dynamo=False, opset_version=17,
            input_names=list(axes), output_names=list(model.OUTPUTS),
            dynamic_axes=axes, do_constant_folding=case.fold,
        )  # fmt: skip


def _axes(dynamic: dict) -> dict[str, dict[int, str]]:
    """Free axes by input; the parts of a sequence `x` are inputs `x_0`, `x_1`, ..."""
    found = {}
    for name, axes in dynamic.items():
        parts = axes if isinstance(axes, tuple) else [axes]
        names = [f"{name}_{i}" for i in range(len(parts))] if parts is axes else [name]
        found |= dict(zip(names, parts, strict=True))
    return found
