"""containerd's protocol, nothing else."""
