"""Brings files to this machine: resume, checksums, licences, no connection when offline.

Nothing here knows what a recording is.
"""
