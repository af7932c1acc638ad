"""Regular images behave as under overlay2: every operation, compared with a second engine."""
