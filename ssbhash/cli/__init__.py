"""The command line."""

from ssbhash.cli.app import application

__all__ = ["application"]
