"""One import per command file: importing it registers the command."""

from __future__ import annotations

from . import version  # noqa: F401
