"""Exact ranking of every item for every user."""
