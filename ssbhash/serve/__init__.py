"""An HTTP service over an index: search, change, look at it in a browser (docs/serving.md)."""

from ssbhash.serve.app import create_app
from ssbhash.serve.server import run
from ssbhash.serve.settings import Settings

__all__ = ["Settings", "create_app", "run"]
