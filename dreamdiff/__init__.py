"""A corpus in, a model and images out."""

from .stream import WindowStream as WindowStream
