"""The configuration of a run: schema, composition, objects."""
