"""An HTTP service over an index: search, changes, a page for browsers (docs/serving.md)."""

from ssbhash.serve.app import create_app
from ssbhash.serve.on_ray import ray_application
from ssbhash.serve.server import run
from ssbhash.serve.settings import Settings

__all__ = ["Settings", "create_app", "ray_application", "run"]
