"""Options of the test run."""

import os

import hypothesis
import pytest
import torch

# A busy machine is no defect. Where CI is set, the examples are the same in every run: what new
# ones find, a developer's machine should find.
hypothesis.settings.register_profile(
    "ptqc",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
hypothesis.settings.load_profile("ptqc")


def pytest_addoption(parser):
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite the expected parts of tests/golden"
    )


def pytest_configure(config):
    if config.getoption("--update-golden") and os.environ.get("CI"):
        raise pytest.UsageError(
            "--update-golden refuses to run where CI is set; update at home and commit"
        )


@pytest.fixture(scope="module", autouse=True)
def _seeded_module():
    """Weights that fixtures initialize are the same in every run and every selection of tests."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _seeded(_seeded_module):
    torch.manual_seed(0)
