"""Layers as docker load under overlay2 unpacks them, against unpack."""
