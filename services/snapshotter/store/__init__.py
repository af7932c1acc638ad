"""The snapshots on this machine: what is known of them, and their directories."""
