"""schemathesis sends what the OpenAPI description allows, and what it does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

schemathesis = pytest.importorskip("schemathesis")
pytest.importorskip("fastapi")

from hypothesis import HealthCheck, settings
from serving import serving

import ssbhash
from ssbhash.serve import create_app


@pytest.fixture(scope="module")
def described() -> Iterator[Any]:
    index = ssbhash.HammingIndex(16)
    index.add(np.random.default_rng(0).integers(0, 256, (500, 2), dtype=np.uint8))
    with serving(create_app(index)) as client:
        yield schemathesis.openapi.from_url(str(client.base_url.join("/openapi.json")))


schema = schemathesis.pytest.from_fixture("described")


@schema.parametrize()
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_that_is_described(case: Any) -> None:
    answer = case.call()
    assert answer.status_code < 500, answer.text
    checks = schemathesis.checks
    wanted = ("response_schema_conformance", "status_code_conformance", "content_type_conformance")
    case.validate_response(
        answer,
        checks=[getattr(checks, name, None) or checks.CHECKS.get_one(name) for name in wanted],
    )
