"""Fixtures: every test of behaviour runs on every engine present."""

import pytest

from ssbhash.backends import NAMES, available


@pytest.fixture(params=NAMES)
def backend(request: pytest.FixtureRequest) -> str:
    """Name of an engine; absent ones are skipped by name."""
    if request.param not in available():
        pytest.skip(f"engine {request.param} is not present")
    return request.param
