"""No operator that changed between opset 7 and 25 is forgotten."""

import pytest

from ir.capture.adapters import ADAPTERS
from ir.capture.adapters.reviewed import CLARIFIED, OPTIONS, WIDENED, parse
from tests.capture.schema_changes import changes, kind

ADAPTED = {(op, version) for op, versions in ADAPTERS.items() for version in versions}
REVIEWED = {**parse(WIDENED), **parse(OPTIONS), **parse(CLARIFIED)}


def test_every_change_has_an_adapter_or_was_reviewed():
    found = set(changes())
    assert len(found) > 300
    assert found - ADAPTED - set(REVIEWED) == set()


def test_tables_name_real_changes_once():
    assert not ADAPTED & set(REVIEWED)
    assert (ADAPTED | set(REVIEWED)) - set(changes()) == set()
    listed = sum(len(parse(table)) for table in (WIDENED, OPTIONS, CLARIFIED))
    assert listed == len(REVIEWED)


@pytest.mark.parametrize(("table", "allowed"), [(WIDENED, {"types"}), (OPTIONS, {"options"})])
def test_reviewed_changes_are_of_the_kind_they_are_listed_under(table, allowed):
    wrong = {
        key: kind(*changes()[key]) for key in parse(table) if kind(*changes()[key]) not in allowed
    }
    assert wrong == {}


def test_breaking_changes_are_adapted():
    breaking = {key for key, pair in changes().items() if kind(*pair) == "breaking"}
    assert breaking - ADAPTED == {("Erf", 13)}
    assert {("Slice", 10), ("Softmax", 13), ("Upsample", 10), ("Scan", 9)} <= breaking
