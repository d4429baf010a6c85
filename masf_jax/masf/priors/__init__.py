"""What is made of a forecast ensemble."""
