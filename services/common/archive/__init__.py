"""Layer archives: tar streams of layers, packed from and unpacked to directories."""
