"""How a measurement enters."""
