"""Golden cases of passes: tests/golden/<pass>/<case>.txt.

    # <pipeline text>
    # why: what this case shows
    # skips %h: part of the reason            (optional, any number: a site refused)
    # fails: part of the error                (optional: then nothing follows the graph)
    graph g(%x: f32[1,2]) -> %y { ... }
    -->
    graph g(...) -> %y { ... }                (or the word `unchanged`)

Graphs are compared as texts, free of the order of lines and of node names. `passes.run` itself
verifies every step and executes both sides of EXACT ones. The target is the small one of
tests/helpers.py; the data is drawn to fit the graph's inputs. `pytest --update-golden` rewrites
what follows the arrow.
"""

import difflib
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import ir
from ir.errors import PtqcError, VerifyError
from ir.text import store
from tests.helpers import apply, feeds

FOLDER = Path(__file__).parent / "golden"
CASES = sorted(FOLDER.glob("*/*.txt"))
ARROW, UNCHANGED = "-->", "unchanged"
FIX = "run `pytest tests/test_golden.py --update-golden`, read the difference, commit it"


@dataclass
class Case:
    pipeline: str
    why: str
    before: str
    after: str | None
    head: str
    skips: list[tuple[str, str]] = field(default_factory=list)
    fails: str | None = None


def read(text: str) -> Case:
    """The parts of a case; AssertionError says what is missing."""
    lines = text.splitlines()
    count = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    head = [line[1:].strip() for line in lines[:count]]
    assert head, "the first line must be '# <pipeline>'"
    before, arrow, after = "\n".join(["", *lines[count:], ""]).partition(f"\n{ARROW}\n")
    case = Case(head[0], "", before.strip() + "\n", after.strip() if arrow else None,
                "\n".join(lines[:count]))  # fmt: skip
    for line in head[1:]:
        key, _, value = (part.strip() for part in line.partition(": "))
        if key == "why":
            case.why = value
        elif key == "fails":
            case.fails = value
        elif key.startswith("skips "):
            case.skips.append((key.removeprefix("skips ").strip(), value))
        else:
            raise AssertionError(f"'# {line}' is neither why, skips nor fails")
    assert case.why, "the case must say '# why: ...'"
    return case


def normal(text: str) -> list[str]:
    """The lines of a graph free of order and spacing, each under the lines that enclose it.

    Numbers are cut to six digits: the last one of a float32 depends on the CPU that ran the data.
    """
    found, open_lines = [], []
    for line in text.splitlines():
        depth = (len(line) - len(line.lstrip())) // len(ir.text.words.INDENT)
        bare = re.sub(r"\s+", " ", line.strip())
        bare = re.sub(r"-?\d+\.\d+(?:e[-+]?\d+)?", lambda n: f"{float(n[0]):.6g}", bare)
        open_lines[depth:] = [bare.split(" = ")[0]]
        found.append(" > ".join([*open_lines[:depth], bare]))
    return sorted(found)


def difference(expected: str, found: str) -> str:
    """A unified difference of two graph texts, or nothing when they are the same graph."""
    left, right = normal(expected), normal(found)
    if left == right:
        return ""
    return "\n".join(difflib.unified_diff(left, right, "expected", "found", lineterm="", n=1))


def check(path: Path, run, update: bool) -> None:
    """Run one case; with `update`, write what it gives into the file instead of comparing."""
    case = read(path.read_text())
    names = re.findall(r"[a-z_]\w*(?=\s*(?:\{|\||$))", case.pipeline)
    assert path.parent.name in names, f"a case of '{path.parent.name}' must have it in its pipeline"
    graph = ir.parse(case.before)
    if case.fails is not None:
        with pytest.raises(PtqcError, match=re.escape(case.fails)):
            run(graph, case.pipeline, data=feeds(graph))
        return
    result = run(graph, case.pipeline, data=feeds(graph))
    for site, reason in case.skips:
        skips = [skip for step in result.report.steps for skip in step.skips]
        assert any(skip.site == site and reason in skip.reason for skip in skips), (
            f"expected {site} skipped: {reason}; found {skips}"
        )
    _compare(path, case, graph, result.graph, update)


def _compare(path: Path, case: Case, graph, after, update: bool) -> None:
    found = ir.show(after, node_names=False)
    before = ir.show(graph, node_names=False)
    same = not difference(before, found)
    if update:
        body = UNCHANGED + "\n" if same else found
        path.write_text(f"{case.head}\n{case.before}{ARROW}\n{body}")
        return
    assert case.after, f"{path.name} has no expected graph after '{ARROW}'; {FIX}"
    if case.after == UNCHANGED:
        assert same, f"expected no change\n{difference(before, found)}"
        return
    try:
        tensors = {**store(graph), **store(after)}
        expected = ir.show(ir.parse(case.after, tensors=tensors), node_names=False)
    except VerifyError as error:
        if "a tensor for digest" not in error.cause:
            raise
        expected = case.after  # a constant that neither side has: the texts differ there
    changed = difference(expected, found)
    assert not changed, f"{path.name}: {case.why}\n{changed}\nif this is meant, {FIX}"


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_case(path, request):
    def run(graph, pipeline, data):
        return apply(graph, pipeline, data)

    check(path, run, request.config.getoption("--update-golden"))


def test_every_folder_has_cases_and_every_case_a_pass():
    """An empty parametrization would pass in silence."""
    from passes.registry import passes

    folders = {folder.name for folder in FOLDER.iterdir()}
    assert {path.parent.name for path in CASES} == folders
    assert folders <= set(passes())
    shared = {"place", "rtn", "clip", "clip_weights", "correct_bias", "collect", "spare"}
    for name in shared:
        count = sum(path.parent.name == name for path in CASES)
        assert count >= 3, f"{name} needs a hit, a miss and a shared value, found {count} cases"


# the loader itself, with passes made of one function ---------------------------------------------


@dataclass
class Skip:
    site: str
    reason: str


@dataclass
class Step:
    skips: list


@dataclass
class Report:
    steps: list


@dataclass
class Result:
    graph: object
    report: Report


def rename(graph, pipeline, data):
    """Turn every Relu into an Elu, refuse Exp, fail at Sin."""
    assert {name: a.shape for name, a in data[0].items()} == {"x": (4, 2)}
    work, skips = graph.clone(), []
    for node in work.graph.all_nodes():
        if node.op_type == "Relu":
            node.op_type = "Elu"
            node.metadata_props["ptqc.by"] = pipeline
        elif node.op_type == "Exp":
            skips.append(Skip(f"%{node.outputs[0].name}", "Exp has no cousin"))
        elif node.op_type == "Sin":
            raise PtqcError("Sin is refused", at=node)
    return Result(work, Report([Step(skips)]))


def case(tmp_path, head, body, after=None):
    folder = tmp_path / "rename"
    folder.mkdir(exist_ok=True)
    path = folder / "case.txt"
    graph = f"graph g(%x: f32[n,2]) -> %y {{\n{body}\n}}\n"
    path.write_text(f"# rename{{a=1}}\n{head}\n{graph}" + (f"-->\n{after}" if after else ""))
    return path


RELU = "%w : f32[9,2] = const seed:1 %h : f32[9,2] = Relu(%w) %y : f32[9,2] = Add(%h, %w)"
ELU = """graph g(%x: f32[n,2]) -> %y {
  %w : f32[9,2] = const seed:1
  %h : f32[9,2] = Elu(%w)   ; by rename{a=1}
  %y : f32[9,2] = Add(%h, %w)
}
"""
WHY = "# why: to see it work"


def test_a_case_that_holds(tmp_path):
    check(case(tmp_path, WHY, RELU, ELU), rename, False)


def test_a_case_that_does_not_hold_shows_the_difference(tmp_path):
    path = case(tmp_path, WHY, RELU, ELU.replace("Elu", "Selu"))
    with pytest.raises(AssertionError, match=r"-.*Selu\(%w\)(.|\n)*\+.*Elu\(%w\)(.|\n)*--upd"):
        check(path, rename, False)


def test_an_expected_constant_that_is_nowhere_is_a_difference(tmp_path):
    path = case(tmp_path, WHY, RELU, ELU.replace("seed:1", "sha:0123456789ab"))
    with pytest.raises(AssertionError, match="sha:0123456789ab"):
        check(path, rename, False)


def test_another_order_of_lines_is_the_same_graph():
    swapped = "a {\n  x = 1\n  y  = 2\n}\n"
    assert not difference(swapped, "a {\n  y = 2\n  x = 1\n}\n")
    nested = "a {\n  x = {\n    p = 1\n  }\n  y = {\n    q = 1\n  }\n}\n"
    moved = "a {\n  x = {\n    q = 1\n  }\n  y = {\n    p = 1\n  }\n}\n"
    assert difference(nested, moved)


def test_numbers_are_compared_to_six_digits():
    line = "  %s : f32[] = const "
    assert not difference(line + "0.030821186", line + "0.030821184")
    assert difference(line + "0.030821186", line + "0.030822")
    assert difference(line + "1e-05", line + "1e-06")
    assert difference(line + "2.5e-05", line + "2.5e-06")


def test_unchanged(tmp_path):
    path = case(tmp_path, WHY, "%y : f32[n,2] = Exp(%x)", "unchanged")
    check(path, rename, False)
    with pytest.raises(AssertionError, match=r"expected no change(.|\n)*Elu"):
        check(case(tmp_path, WHY, RELU, "unchanged"), rename, False)


def test_skips_are_looked_for_in_the_report(tmp_path):
    exp = "%y : f32[n,2] = Exp(%x)"
    check(case(tmp_path, f"{WHY}\n# skips %y: no cousin", exp, "unchanged"), rename, False)
    for line in ("# skips %y: too big", "# skips %z: no cousin"):
        with pytest.raises(AssertionError, match="skipped"):
            check(case(tmp_path, f"{WHY}\n{line}", exp, "unchanged"), rename, False)


def test_failures(tmp_path):
    sin = "%y : f32[n,2] = Sin(%x)"
    check(case(tmp_path, f"{WHY}\n# fails: Sin is refused", sin), rename, False)
    with pytest.raises(AssertionError, match="Sin is refused"):
        check(case(tmp_path, f"{WHY}\n# fails: another", sin), rename, False)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        check(case(tmp_path, f"{WHY}\n# fails: Sin", RELU, ELU), rename, False)
    with pytest.raises(PtqcError, match="Sin is refused"):
        check(case(tmp_path, WHY, sin, "unchanged"), rename, False)


def test_update_writes_what_the_pass_gives(tmp_path):
    path = case(tmp_path, WHY, RELU)
    with pytest.raises(AssertionError, match="no expected graph after '-->'; run `pytest"):
        check(path, rename, False)
    check(path, rename, True)
    check(path, rename, False)
    assert path.read_text().startswith("# rename{a=1}\n# why: to see it work\ngraph g(")
    assert "Elu(%w)  ; by rename{a=1}" in path.read_text()
    path = case(tmp_path, WHY, "%y : f32[n,2] = Exp(%x)", ELU)
    check(path, rename, True)
    assert path.read_text().endswith("-->\nunchanged\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [("graph g() -> {}", "first line"), ("# rtn\ngraph g() -> {}", "why"),
     ("# rtn\n# why: x\n# hm: y\n", "neither why"),
     ("# rtn\n# why: x\ngraph g() -> {}", "must have it")],
)  # fmt: skip
def test_a_case_must_be_complete(tmp_path, text, message):
    (tmp_path / "rename").mkdir()
    path = tmp_path / "rename" / "case.txt"
    path.write_text(text)
    with pytest.raises(AssertionError, match=message):
        check(path, rename, False)


def test_updating_is_refused_where_ci_is_set(monkeypatch):
    from tests.conftest import pytest_configure

    class Config:
        def getoption(self, name):
            return True

    monkeypatch.delenv("CI", raising=False)
    pytest_configure(Config())
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.UsageError, match="refuses to run where CI is set"):
        pytest_configure(Config())
