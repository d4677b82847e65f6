"""schemathesis sends what the OpenAPI description allows, and what it does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

schemathesis = pytest.importorskip("schemathesis")
pytest.importorskip("fastapi")

from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode, checks
from serving import serving

import ssbhash
from ssbhash.serve import create_app

CHECKS = [
    checks.not_a_server_error,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.status_code_conformance,
]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_every_answer_is_one_that_is_described(mode: str) -> None:
    index = ssbhash.HammingIndex(16)
    index.add(np.random.default_rng(0).integers(0, 256, (500, 2), dtype=np.uint8))
    with serving(create_app(index)) as client:
        schema = schemathesis.openapi.from_url(str(client.base_url.join("/openapi.json")))
        operations = [found.ok() for found in schema.get_all_operations()]
        assert len(operations) > 10
        for operation in operations:
            if mode == "negative" and operation.method.upper() == "GET":
                continue  # has nothing that could be wrong
            check(operation, GenerationMode(mode))


def check(operation: Any, mode: GenerationMode) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=30, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    def ask(case: Any) -> None:
        answer = case.call()
        assert answer.status_code < 500, answer.text
        case.validate_response(answer, checks=CHECKS)

    ask()
