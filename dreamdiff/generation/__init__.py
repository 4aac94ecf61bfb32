"""From trials to PNG files with a sidecar each, and contact sheets."""
