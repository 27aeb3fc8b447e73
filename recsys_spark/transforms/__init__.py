"""Pure functions from DataFrames to DataFrames: events, interactions, ids, splits."""
