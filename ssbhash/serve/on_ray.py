"""The service under Ray Serve."""

from __future__ import annotations

from typing import Any

from ssbhash.serve.server import app_of_process
from ssbhash.serve.settings import Settings
from ssbhash.serve.source import is_sharded


def ray_application(settings: Settings, **options: Any) -> Any:
    """Make an application for Ray Serve.

    Ray Serve starts a replica that dies again. A sharded index has one replica, which owns the
    shards; each replica of another index maps the folder, and one of them writes.

    Parameters
    ----------
    settings : Settings
        What to serve, and its limits.
    **options
        As of `ray.serve.deployment`, such as `num_replicas` and `ray_actor_options`.

    Returns
    -------
    ray.serve.Application
        For `ray.serve.run`.

    Raises
    ------
    ValueError
        If several replicas were to own a sharded index.

    Examples
    --------
    >>> from ssbhash.serve import Settings, ray_application
    >>> app = ray_application(Settings(folder="/data/index"))
    >>> type(app).__name__  # ray.serve.run(app) starts it
    'Application'
    """
    from ray import serve

    if is_sharded(settings.folder or "") and options.get("num_replicas", 1) != 1:
        raise ValueError("num_replicas must be 1: one process owns a sharded index")
    options = {"name": "ssbhash", "max_ongoing_requests": settings.max_connections, **options}

    def build() -> Any:
        return app_of_process(settings)

    return serve.deployment(**options)(serve.ingress(build)()).bind()
