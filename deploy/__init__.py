"""Ways to run the jobs: installation, standalone cluster."""
