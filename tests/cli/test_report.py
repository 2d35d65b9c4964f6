"""The HTML report: complete, self-contained, safe to open, readable without colour."""

from __future__ import annotations

import builtins
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from passes.command.html import render
from passes.command.layers import scaled


class Page(HTMLParser):
    """Tags in order, texts, and whether every tag is closed."""

    VOID = frozenset({"meta", "br", "rect", "line"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.words.append(" ".join(data.split()))


@pytest.fixture
def page(ptqc, files) -> tuple[Page, dict]:
    ran = ptqc(
        "quantize",
        files["conv.onnx"],
        "-r",
        "w8a8",
        "--calib",
        files["conv.npz"],
        "-o",
        files["out"],
        "--html",
        files["report.html"],
        "--json",
        files["facts.json"],
    )
    assert ran.status == 0, ran.err
    assert files["report.html"] in ran.out.replace("\n", "")
    text = Path(files["report.html"]).read_text()
    return Page(text), json.loads(Path(files["facts.json"]).read_text())


def test_shows_what_json_has(page) -> None:
    found, facts = page
    assert not found.open
    words = set(found.words)
    for name, row in facts["accuracy"]["outputs"].items():
        assert name in words
        assert f"{row['sqnr_db']:.1f} dB" in words
    for step in facts["steps"]:
        assert step["step"] in words
    for row in facts["layers"]["refused"]:
        assert row["reason"] in words
    assert {"relu6", "relu", "conv2d_2", "mean"} <= words
    assert facts["pipeline"] in words


def test_plots_have_a_bar_for_every_row(page) -> None:
    found, _ = page
    bars = [attributes for tag, attributes in found.tags if tag == "rect"]
    assert len(bars) > 30
    for bar in bars:
        start, width = float(bar["x"]), float(bar["width"])
        assert start >= 0
        assert width >= 0
        assert start + width <= 100.6


def test_needs_nothing_from_anywhere(page) -> None:
    found, _ = page
    assert not [
        tag for tag, _ in found.tags if tag in ("script", "link", "img", "iframe", "object")
    ]
    assert not [
        a for _, attributes in found.tags for a in attributes if a in ("src", "href", "onload")
    ]
    policy = [a["content"] for tag, a in found.tags if tag == "meta" and "http-equiv" in a]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]
    assert any(a.get("name") == "viewport" for tag, a in found.tags if tag == "meta")


def facts_with(name: str) -> dict:
    return {
        "ptqc": "1",
        "model": name,
        "output": "o",
        "recipe": "r",
        "pipeline": "p",
        "seed": 0,
        "target": "ort",
        "seconds": 1.0,
        "peak_bytes": 1,
        "warnings": [name],
        "steps": [],
        "accuracy": {"outputs": {}, "samples": 1, "measured_on": "data", "executed_by": "ort"},
        "size": {"ratio": 1.0, "float_bytes": 1, "bytes": 1},
        "latency": {"ratio": None},
        "layers": {"quantized": 0, "refused": [], "without_kernel": [], "kernels": {}},
    }


def test_names_of_a_hostile_model_stay_text() -> None:
    evil = "<script>alert(1)</script>"
    rows = [{"value": evil, "op": evil, "sqnr_db": float("nan"), "cosine": 0.0}]
    text = render(facts_with(evil), errors=rows, weights=[], activations=[])
    assert evil not in text
    assert text.count("&lt;script&gt;") >= 4
    assert "<script" not in text


def test_a_model_without_any_layer_still_has_a_report() -> None:
    text = render(facts_with("m"), errors=[], weights=[], activations=[])
    assert re.search("No value has a calibrated range", text)


def test_bars_keep_order_and_stay_inside() -> None:
    start, width = scaled(-1.0, 1.0, 1.0)
    assert start == pytest.approx(0)
    assert width == pytest.approx(100)
    inner = scaled(-0.5, 0.5, 1.0)
    assert 0 < inner[0] < 50 < sum(inner) < 100
    assert sum(scaled(0.0, 1e9, 1.0)) <= 100.5
    assert scaled(0.0, 0.0, 0.0) == (50, 0.5)


def test_without_the_extra_it_says_what_to_install(ptqc, files, monkeypatch) -> None:
    real = builtins.__import__

    def no_jinja(name, *more):
        if name == "jinja2":
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", no_jinja)
    before = files.snapshot()
    ran = ptqc(
        "quantize", files["mlp.onnx"], "-r", "w8a16", "-o", files["out"], "--html", files["r.html"]
    )
    assert ran.status == 10
    assert "pip install 'ptqc[report]'" in ran.err
    assert files.snapshot() == before
