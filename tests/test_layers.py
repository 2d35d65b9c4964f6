"""Imports point one way, and core packages never import `models` (a user's own may shadow it)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "ir": {"ir"},
    "backends": {"ir", "backends"},
    "calib": {"ir", "calib", "backends.torch"},
    "passes": {
        "ir",
        "calib",
        "passes",
        "backends",
        "backends.base",
        "backends.reference",
        "backends.torch",
    },
}
EVERY_BACKEND = {ROOT / "passes" / "cli.py", *(ROOT / "passes" / "command").glob("*.py")}


def imports_of(path: Path) -> set[str]:
    """Absolute dotted names of our packages that a file imports, at any depth."""
    package = ".".join(path.relative_to(ROOT).parent.parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
            name = f"{base}.{node.module or ''}".rstrip(".") if node.level else node.module or ""
            found |= {name} | {f"{name}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in {*ALLOWED, "models"}}


def allowed(name: str, package: str) -> bool:
    parts = name.split(".")
    prefixes = {".".join(parts[:i]) for i in range(1, len(parts) + 1)}
    if package == "passes" and parts[0] == "backends":
        return (
            len(parts) == 1
            or bool(prefixes & (ALLOWED[package] - {"backends"}))
            or (len(parts) == 2 and (not (ROOT / "backends" / parts[1]).exists()))
        )
    return bool(prefixes & ALLOWED[package])


FILES = sorted(p for package in ALLOWED for p in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    wrong = {name for name in imports_of(path) if not allowed(name, package)}
    assert path in EVERY_BACKEND or not wrong, f"{path} imports {sorted(wrong)}"


def test_the_check_sees_a_wrong_import():
    assert not allowed("passes.core", "ir")
    assert not allowed("backends.ort", "passes")
    assert not allowed("backends.ort.lower", "passes")
    assert not allowed("models.minilm", "calib")
    assert not allowed("backends.base", "calib")
    assert allowed("backends.torch.Executor", "calib")
    assert allowed("backends.target", "passes")
    sample = imports_of(ROOT / "passes" / "run.py")
    assert {"backends.base", "ir.graph", "calib"} <= sample
