"""A standalone cluster on loopback."""
