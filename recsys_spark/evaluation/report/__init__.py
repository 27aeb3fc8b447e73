"""The report of a run: what was decided and why, on one page without a network."""
