"""Which public data sets exist, under which licence, and which of them a manifest asks for."""
