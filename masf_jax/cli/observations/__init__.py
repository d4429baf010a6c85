"""Real observations from files."""
