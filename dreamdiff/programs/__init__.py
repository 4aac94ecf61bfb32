"""Whole jobs behind one command: demo, ablations, app, convert, doctor."""
