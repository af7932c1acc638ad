"""How the publisher is: what the interface, the page and the metrics tell of it."""
