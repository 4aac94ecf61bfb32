"""Studies with raters: reconstructions go out as a page, answers come back as numbers."""
