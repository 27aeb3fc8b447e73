"""What each job does, and nothing but wiring: read tables, call functions, write tables."""
