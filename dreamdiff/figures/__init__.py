"""The figures of the paper as pages, each by one command."""
