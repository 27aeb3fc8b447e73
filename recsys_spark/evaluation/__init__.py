"""Metrics per user, baselines and their comparison."""
