"""The page of transforms says what the rows say."""

from benchmarks.transforms_page import page

ROW = {"model": "m", "transform": "smooth", "folded": 2, "refused": 3, "float32": 2e-7}


def test_cells_reasons_and_failures():
    rows = [
        ROW | {"double": 1.6e-15, "reasons": {"Gelu sees it": 3}},
        ROW | {"model": "k", "reasons": {"Gelu sees it": 1}, "double_failure": "no; hint"},
        {"model": "k", "transform": "shift", "failure": "nothing matched; hint"},
    ]
    text = page(rows)
    assert "| smooth | 2 / 3; 2e-07, - | 2 / 3; 2e-07, 2e-15 |" in text
    assert "| shift | see below |  |" in text
    assert "  - 4 x Gelu sees it" in text
    assert "- k, smooth: no\n" in text
    assert "- k, shift: nothing matched\n" in text
    assert "**over**" not in text.split("|", 1)[1]
    assert "2 / 3; 2e-05, 2e-15 **over**" in page([rows[0] | {"float32": 2e-5}])
    assert "Not measured" not in page(rows[:1])
