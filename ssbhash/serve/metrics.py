"""Metrics for Prometheus. Several workers share it through PROMETHEUS_MULTIPROC_DIR."""

from __future__ import annotations

import os
from functools import cache

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

__all__ = ["BATCH", "CONTENT_TYPE_LATEST", "FAILED_LOOKS", "ITEMS", "count", "text"]

REQUESTS = Counter("ssbhash_requests", "Requests answered.", ["path", "status"])
SECONDS = Histogram(
    "ssbhash_request_seconds",
    "Seconds from a request's head to the end of its answer.",
    ["path"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
BATCH = Histogram(
    "ssbhash_batch_queries",
    "Queries searched for at once.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096),
)
ITEMS = Gauge("ssbhash_items", "Items in the index.", multiprocess_mode="mostrecent")
FAILED_LOOKS = Counter(
    "ssbhash_failed_looks", "Times that the folder's new content could not be read."
)


@cache
def _figures_of(path: str, status: int) -> tuple[Counter, Histogram]:
    return REQUESTS.labels(path, status), SECONDS.labels(path)


def count(path: str, status: int, seconds: float) -> None:
    """Count a request that was answered."""
    requests, durations = _figures_of(path, status)
    requests.inc()
    durations.observe(seconds)


def text() -> bytes:
    """Write the figures of all workers in the Prometheus text format."""
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
