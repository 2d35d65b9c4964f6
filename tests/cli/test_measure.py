"""What is executed stands beside what was simulated, and a kernel that goes wrong is noticed."""

from calib.metrics import Comparison
from passes.command.measure import APART, Simulation, _deviations, compare
from tests.helpers import tiny_graph


def figures(db: float) -> Comparison:
    return Comparison(db, 1.0, 0.0, 1)


def test_a_saturating_kernel_is_named():
    (line,) = _deviations({"y": figures(38.5)}, {"y": figures(20.4)})
    assert "20.4 dB as executed but 38.5 dB as simulated" in line


def test_rounding_at_a_boundary_is_not():
    assert not list(_deviations({"y": figures(30.0)}, {"y": figures(30.0 - APART / 2)}))
    assert not list(_deviations({"y": None}, {"y": figures(1.0)}))


def test_a_float_graph_simulates_as_itself():
    from models.tiny import conv

    graph = tiny_graph("conv")
    found = compare(Simulation(graph), Simulation(graph), conv.evaluation(2))
    assert [row.sqnr_db for row in found.values()] == [float("inf")]
