"""From a named choice and its scalars to a library object: one registry a group.

To use an object that is not here (a model of your own, say), call the library directly: see
`masf_jax.simulate` and `masf_jax.assimilate`.
"""
