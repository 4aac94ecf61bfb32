"""Reads a corpus from a disk or an object store and hands windows out; exports and merges it."""
