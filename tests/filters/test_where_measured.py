"""An analysis where nothing, or something, is measured."""

import jax
import jax.numpy as jnp
import numpy as np

from masf_jax.filters.base import where_measured


def test_under_vmap_runs_share_what_the_analysis_is_made_of():
    """No run has a copy of the parameters; a run without a value keeps its forecast, bit for bit."""
    weights = jax.random.normal(jax.random.key(0), (7, 7))
    states, values = jax.random.normal(jax.random.key(1), (2, 5, 7))
    there = jnp.array([True, True, False, True, False])

    def analysis(state, value, there):
        def use(state):
            after = state + jnp.tanh(weights @ (value - state))
            return after, {"moved": jnp.linalg.norm(after - state)}

        return where_measured(jnp.full((7,), there), use, state)

    after, info = jax.vmap(analysis)(states, values, there)
    alone = [analysis(*each) for each in zip(states, values, there, strict=True)]
    for k, (own, told) in enumerate(alone):
        np.testing.assert_allclose(after[k], own, rtol=1e-6)
        np.testing.assert_allclose(info["moved"][k], told["moved"], rtol=1e-6)
    np.testing.assert_array_equal(after[~there], states[~there])
    assert "f32[5,7,7]" not in str(jax.make_jaxpr(jax.vmap(analysis))(states, values, there))
