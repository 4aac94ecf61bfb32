"""The command line: two Typer apps, their shared output, and the only place that turns an error into an exit code."""
