"""jax-cfd's Kolmogorov flow as a model of ours, set up as the paper's codes run it.

jax-cfd is not among our dependencies, and brings many of its own; its solver needs only tree-math:

    python -m pip install --no-deps --target DIR jax-cfd==0.2.1 tree-math
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from masf_jax import dynamics

if not hasattr(jax, "tree_map"):  # jax-cfd 0.2.1 still calls it; JAX took it out in 0.4.36
    jax.tree_map = jax.tree.map  # pyright: ignore[reportAttributeAccessIssue]
import jax_cfd.base as cfd  # pyright: ignore[reportMissingImports]


class JaxCFD(dynamics.Dynamics):
    """Re = 1000, drag .1, force sin(4y): finite volumes, van Leer advection, 21 steps each .2 at 64².

    The state is the velocity (2, n, n) on its staggered faces.
    """

    dt: jax.Array
    n: int = eqx.field(static=True)

    def __init__(self, n: int = 64):
        self.n, self.dt = n, jnp.asarray(0.2)

    @property
    def state_shape(self):
        return (2, self.n, self.n)

    @property
    def coordinates(self):
        return dynamics.Kolmogorov(self.n).coordinates

    @property
    def spin_up_steps(self):
        return 50

    @property
    def _grid(self):
        return cfd.grids.Grid((self.n, self.n), domain=((0, 2 * np.pi), (0, 2 * np.pi)))

    def initial_state(self, key):
        velocity = cfd.initial_conditions.filtered_velocity_field(key, self._grid, 3.0, 4)
        return jnp.stack([component.data.T for component in velocity])

    def __call__(self, x, time, key):
        grid, n_inner = self._grid, round(21 * self.n / 64)
        periodic = cfd.boundaries.periodic_boundary_conditions(2)
        forcing = cfd.forcings.sum_forcings(
            cfd.forcings.kolmogorov_forcing(grid, scale=1.0, k=4), cfd.forcings.linear_forcing(grid, -0.1)
        )
        advance = cfd.equations.semi_implicit_navier_stokes(
            density=1.0, viscosity=1e-3, dt=0.2 / n_inner, grid=grid, forcing=forcing
        )
        velocity = cfd.initial_conditions.wrap_variables((x[0].T, x[1].T), grid, (periodic, periodic))
        velocity = jax.lax.fori_loop(0, n_inner, lambda i, v: advance(v), velocity)
        return jnp.stack([component.data.T for component in velocity])
