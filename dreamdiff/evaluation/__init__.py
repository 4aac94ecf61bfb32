"""Evaluates a model on held-out trials: scores, controls, baselines, report."""
