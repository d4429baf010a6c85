"""Which network suits a state by its shape alone."""

import jax
import jax.numpy as jnp
import pytest
from often import often

from masf_jax.denoisers.architecture import Architecture
from masf_jax.ensemble.normalization import Moments
from masf_jax.masf.amortised.features import analysis_features
from masf_jax.measurements import Gaussian, Identity, Measurement

FORMS = {
    (3,): ("vector", 0, 3),
    (40,): ("ring", 1, 1),
    (2, 5): ("vector", 0, 10),
    (2, 100): ("ring", 1, 2),  # two variables on one axis, not a grid of two rows
    (8, 64): ("field", 2, 1),
    (2, 64, 64): ("field", 2, 2),
    (2, 3, 16, 16): ("vector", 0, 1536),
}
NETWORK = Architecture(channels=4, width=8)


@pytest.mark.parametrize(("shape", "form"), FORMS.items())
def test_layout_by_shape(shape, form):
    assert NETWORK.form(shape) == form


@pytest.mark.parametrize("shape", often(list(FORMS), ((3,), (2, 64, 64))), ids=str)
def test_estimates_have_the_shape_of_the_state(shape):
    estimate = jax.eval_shape(
        lambda key, x: NETWORK.create(key, shape)(x, x), jax.random.key(0), jnp.ones(shape)
    )
    assert estimate.shape == shape


def test_an_axis_too_short_for_the_levels_is_said():
    with pytest.raises(ValueError, match=r"2 cells at least at the last, but the sizes are \(2, 100\)"):
        Architecture(layout="field").create(jax.random.key(0), (2, 100))


def test_features_of_a_vector_are_those_of_the_state_flattened(key):
    shape = (2, 3, 2)
    before, after = jax.random.normal(key, (2, 7, *shape))
    z, mask = jnp.arange(12.0).reshape(shape), jnp.arange(12).reshape(shape) % 3 > 0
    measurement = Measurement(Identity(), Gaussian(0.5))

    def features(*shape):
        climate = Moments(jnp.zeros(shape), jnp.full(shape, 2.0))
        ensembles = (x.reshape(7, *shape) for x in (before, after))
        values = (x.reshape(shape) for x in (z, mask))
        return analysis_features(*ensembles, *values, measurement, climate, "vector")

    one, other = jax.jit(lambda: (features(*shape), features(12)))()
    assert jnp.allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 0}, "width of a network must be at least 1; got 0"),
        ({"memory": -3}, "memory of a network must be at least 0; got -3"),
        ({"member_width": -1}, "member_width"),
        ({"multipliers": (1, 0)}, "multipliers of a network must be at least 1; got 0"),
        ({"multipliers": ()}, "one level at least"),
    ],
)
def test_sizes_that_no_network_has(change, words):
    with pytest.raises(ValueError, match=words):
        Architecture(**change)
