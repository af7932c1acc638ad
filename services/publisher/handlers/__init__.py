"""HTTP: what a request means and what is answered, nothing else."""
