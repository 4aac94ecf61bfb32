"""Thin Typer shells. Relative imports only: the folder is `cli` in a checkout and `dreamdiff_cli` when installed."""
