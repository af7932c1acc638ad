"""What `make soak` found out, and docs/reliability.md, the page that is made of it."""
