"""Which images a repository need not have any more."""
