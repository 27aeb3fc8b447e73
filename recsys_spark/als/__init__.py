"""Alternating least squares in which the fixed side never moves."""
