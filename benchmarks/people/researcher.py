"""A network as model learns through the filter: Adam on the misfit of its forecasts."""

import equinox as eqx
import jax
import optax
from ringnet import RingNet, first, measured

from masf_jax import assimilate, dynamics, filters, measurements

values = measured(50)
sensor = measurements.Measurement(measurements.Identity(), measurements.Gaussian(0.1))
members = jax.vmap(first)(jax.random.split(jax.random.key(1), 20))


@eqx.filter_value_and_grad
def loss(net):
    model = dynamics.ModelError(dynamics.Function(net, (8,), 1.0), 0.1)
    run = assimilate(jax.random.key(2), filters.ETKF(), model, sensor, values, members)
    return ((run.forecast["mean"] - values) ** 2).mean()


net, adam = RingNet(jax.random.key(0)), optax.adam(0.01)
state, both = adam.init(eqx.filter(net, eqx.is_array)), eqx.filter_jit(loss)
for i in range(60):
    value, slope = both(net)
    updates, state = adam.update(slope, state)
    net = eqx.apply_updates(net, updates)
    if i % 20 == 0:
        print(i, value)
