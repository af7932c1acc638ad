"""The demonstration: the whole circle on one machine, checked to the last attribute."""
