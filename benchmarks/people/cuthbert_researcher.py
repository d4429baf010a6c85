"""researcher.py with cuthbert 0.1.1."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from cuthbert import filter as run_filter
from cuthbert.ensemble_kalman import ensemble_kalman_filter
from ringnet import RingNet, first, measured

values = measured(50)


@eqx.filter_value_and_grad
def loss(net):
    enkf = ensemble_kalman_filter.build_filter(
        init_sample=first,
        get_dynamics=lambda _: lambda x, key: net(x) + 0.1 * jax.random.normal(key, (8,)),
        get_observations=lambda z: (lambda x: x, 0.1 * jnp.eye(8), z),
        n_particles=20,
        store_predicted_ensemble=True,
    )
    run = run_filter(enkf, values, enkf.init_prepare(key=jax.random.key(1)), key=jax.random.key(2))
    return ((run.predicted_ensemble[1:].mean(1) - values) ** 2).mean()


net, adam = RingNet(jax.random.key(0)), optax.adam(0.01)
state, both = adam.init(eqx.filter(net, eqx.is_array)), eqx.filter_jit(loss)
for i in range(60):
    value, slope = both(net)
    updates, state = adam.update(slope, state)
    net = eqx.apply_updates(net, updates)
    if i % 20 == 0:
        print(i, value)
