"""Which images a repository should have: wish lists, polling, webhooks, policies, retention."""
