"""The study runner: what is measured when, what a stop or a failure leaves, and the page."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import ir
from benchmarks import record
from benchmarks.study import catalogue, grid, plots, report, run
from benchmarks.study.grid import FLOAT, Study
from benchmarks.study.tasks.base import CLEAN, Score, Task, compared
from ir.errors import DataError

GRAPH = """graph g(%x: f32[batch,16]) -> %y {
  %w : f32[16,8] = const seed:1
  %y : f32[batch,8] = MatMul(%x, %w)
}"""
STUDY = Study(
    "tiny", "Why not?", ("small",), {"w8": "w8a16", "w8a8": "w8a8_dynamic"}, source="nobody",
    conditions=(CLEAN, "loud"),
)  # fmt: skip


class Small(Task):
    figure = "closeness"

    def __init__(self) -> None:
        super().__init__("small")
        self.asked: list[str] = []

    @property
    def graphs(self):
        return {"": ir.parse(GRAPH)}

    @property
    def binding(self):
        return {"": {"batch": 1}}

    def score(self, runs, reference, n, condition, seed):
        self.asked.append(condition)
        if condition == "broken":
            raise DataError("no such thing")
        rng = np.random.default_rng(seed)
        size = 1 if condition == CLEAN else 3
        feeds = [{"x": size * rng.normal(size=(2, 16)).astype(np.float32)} for _ in range(n)]
        sqnr, _ = compared(runs[""], reference[""], feeds)
        return Score(min(sqnr, 99.0) / size, 1.0, 100.0, sqnr, {"size": size})


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """(task, cells) of the study, rows and models its own."""
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setitem(catalogue.MODELS, "small", catalogue.Entry("vision", "none", 3, 5, 2))
    run._float_runs.cache_clear()
    run._built.cache_clear()
    task = Small()
    return task, lambda: list(STUDY.cells("small"))


TASK = Small()


def the_task(_):  # one function for all cells, as in a real run
    return TASK


def test_every_recipe_is_measured_behind_every_way_of_preparing_a_model(tmp_path):
    file = tmp_path / "studies.toml"
    file.write_text("""[s]
why = "x"
models = ["minilm"]
prepare = { outliers = "inject_outliers" }
recipes = { a = "w8a16", b = "smooth | w8a8_dynamic" }""")
    study = grid.read(file)["s"]
    assert study.recipes == {
        "a": "w8a16", "b": "smooth | w8a8_dynamic", "a (outliers)": "inject_outliers | w8a16",
        "b (outliers)": "inject_outliers | smooth | w8a8_dynamic",
    }  # fmt: skip
    assert [cell.recipe for cell in study.cells("small")] == [FLOAT, *study.recipes]
    file.write_text(file.read_text().replace("inject_outliers", "inject_nonsense"))
    with pytest.raises(DataError, match=r"a \(outliers\)"):
        grid.read(file)


def measured(task, cells):
    return [run.measure(cell, lambda _: task) for cell in run.missing(cells)]


def test_float_stands_beside_every_recipe_under_every_condition(tiny):
    _, cells = tiny
    found = [(cell.recipe, cell.condition, cell.samples) for cell in cells()]
    recipes = (FLOAT, "w8", "w8a8")
    assert found == [(recipe, condition, 3) for recipe in recipes for condition in (CLEAN, "loud")]


def test_a_cell_is_measured_once(tiny):
    task, cells = tiny
    rows = measured(task, cells()[:3])
    assert [row["recipe"] for row in rows] == [FLOAT, FLOAT, "w8"]
    assert len(task.asked) == 3
    assert len(measured(task, cells())) == 3  # what was left
    assert not measured(task, cells())
    changed = [replace(cell, pipeline="w8a16{keep=[x]}") for cell in cells() if cell.recipe == "w8"]
    assert len(run.missing(changed)) == 2  # another text is another cell


def test_rows_hold_the_accounts_of_what_ran(tiny):
    task, cells = tiny
    rows = {(r["recipe"], r["condition"]): r for r in measured(task, cells())}
    float_, small = rows[FLOAT, CLEAN], rows["w8", CLEAN]
    assert float_["weight_bytes"] == 16 * 8 * 4
    assert small["weight_bytes"] == 16 * 8 + 8 * 4
    assert small["size_ratio"] == pytest.approx(160 / 512, abs=1e-4)
    assert float_["bops"] == 128 * 256
    assert (small["bops"], rows["w8a8", CLEAN]["bops"]) == (128 * 16 * 8, 128 * 8 * 8)
    assert 30 < small["sqnr_db"] < 60
    assert rows["w8a8", CLEAN]["sqnr_db"] < small["sqnr_db"]
    kept = record.rows("study/tiny")
    assert len(kept) == 6
    assert json.dumps(kept)  # plain numbers


def test_one_quantized_model_meets_every_condition(tiny, monkeypatch):
    _, cells = tiny
    made, quantize = [], run._quantized
    monkeypatch.setattr(run, "_quantized", lambda *a: made.append(a[0].recipe) or quantize(*a))
    for cell in run.missing(cells()):
        run.measure(cell, the_task)
    assert made == ["w8", "w8a8"]


def test_a_stop_between_cells_loses_nothing(tiny):
    task, cells = tiny

    class Stopped(Small):
        def score(self, *args):
            if len(self.asked) == 2:
                raise KeyboardInterrupt
            return super().score(*args)

    stopped = Stopped()
    with pytest.raises(KeyboardInterrupt):
        measured(stopped, cells())
    assert len(record.rows("study/tiny")) == 2
    assert len(measured(task, cells())) == 4


def test_a_failing_cell_is_a_row_with_the_reason(tiny):
    task, cells = tiny
    cell = replace(cells()[0], condition="broken")
    (row,) = measured(task, [cell])
    assert row["failure"] == "DataError: no such thing"
    assert run.missing([cell]) == [cell]  # its data may be there the next time
    study = replace(STUDY, conditions=("broken",))
    assert "- float, broken: DataError: no such thing" in report.section(study, [row])


def test_the_page_is_made_of_the_rows_and_keeps_the_prose(tiny, tmp_path):
    task, cells = tiny
    rows = measured(task, cells())
    page = report.write([(STUDY, rows)], tmp_path / "results.md")
    text = page.read_text()
    assert "| closeness (drop) | clean | loud |" in text
    page.write_text(text.replace("Why not?", "My own words."))
    again = report.write([(STUDY, rows[::-1])], page).read_text()
    assert again == text.replace("Why not?", "My own words.")
    clean = next(r for r in rows if r["recipe"] == "w8" and r["condition"] == CLEAN)["figure"]
    loud = next(r for r in rows if r["recipe"] == "w8" and r["condition"] == "loud")["figure"]
    assert f"| w8 | {clean:.4g} | {loud:.4g} ({(clean - loud) / clean:+.1%}) |" in text


def test_a_study_of_one_condition_has_a_line_a_recipe(tiny):
    task, cells = tiny
    rows = [row for row in measured(task, cells()) if row["condition"] == CLEAN]
    text = report.section(replace(STUDY, conditions=(CLEAN,)), rows)
    (line,) = [line for line in text.splitlines() if line.startswith("| w8 |")]
    row = next(row for row in rows if row["recipe"] == "w8")
    cells_of = [part.strip() for part in line.strip("|").split("|")]
    assert cells_of[:6] == ["w8", "3", f"{row['figure']:.4g}", "1 to 100",
                            f"{row['sqnr_db']:.1f}", "0.00"]  # fmt: skip


def test_a_recipe_that_the_study_dropped_leaves_the_page(tiny):
    task, cells = tiny
    rows = measured(task, cells())
    assert "w8a8" not in report.section(replace(STUDY, recipes={"w8": "w8a16"}), rows)


@pytest.mark.parametrize("conditions", [(CLEAN,), (CLEAN, "loud")])
def test_plots_are_the_same_for_the_same_rows(tiny, tmp_path, conditions):
    pytest.importorskip("matplotlib")
    task, cells = tiny
    study = replace(STUDY, conditions=conditions)
    rows = measured(task, cells())
    one = plots.write(study, rows, tmp_path / "one").read_bytes()
    assert one == plots.write(study, rows[::-1], tmp_path / "two").read_bytes()
    assert b"closeness" in one
    assert plots.write(study, [], tmp_path) is None


def test_what_is_not_calibrated_has_no_share_of_degraded_calibration(tiny):
    study = replace(STUDY, recipes={"w8": "w8a16", "static": "w8a8"}, mixed=(0.0, 0.5))
    found = {(cell.recipe, cell.mixed) for cell in study.cells("small")}
    assert found == {(FLOAT, 0.0), ("w8", 0.0), ("static", 0.0), ("static", 0.5)}


def test_the_studies_name_what_exists():
    studies = grid.read()
    assert {"baselines", "qrid", "edge-asr", "ptq-bench", "llama3-quant-study"} <= set(studies)
    assert set(studies["baselines"].models) == set(catalogue.MODELS)
    keys = [json.dumps(cell.key()) for study in studies.values() for cell in study.cells("small")]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize(
    ("text", "message"),
    [('[a]\nwhy="w"\nsource="s"\nmodels=["no"]\n[a.recipes]\n', "names no"),
     ('[a]\nwhy="w"\nsource="s"\nmodels=["dit"]\n[a.recipes]\nx="nothing"', "recipe 'x'"),
     ('[a]\nsource="s"\nmodels=["dit"]\n[a.recipes]\n', "lacks 'why'")],
)  # fmt: skip
def test_a_wrong_study_is_named(tmp_path, text, message):
    path = tmp_path / "studies.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        grid.read(path)
