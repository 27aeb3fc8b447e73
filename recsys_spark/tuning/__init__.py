"""Settings found on windows of the past: what is judged, and how it is searched."""
