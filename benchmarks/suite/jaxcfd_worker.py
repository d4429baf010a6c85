"""jax-cfd's Kolmogorov flow in its own Python: fields after some transitions, then timings on request.

    python jaxcfd_worker.py IN.npz OUT.npz

IN: reynolds, dt, n_check, sizes, and for each size n `x_n`, velocities (N, 2, ny, nx) on jax-cfd's staggered
faces, and `n_steps_n` inner steps per transition. OUT: `x_n` (the fields after n_check transitions, on the
faces) and `version` (of JAX). Prints a line when OUT is written; then, for each line "n burst" on standard
input, the mean seconds and CPU seconds of a transition at n² over about `burst` seconds.
"""

import sys
import time

import jax
import jax.numpy as jnp
import jax_cfd.base as cfd
import numpy as np

if not hasattr(jax, "tree_map"):  # jax-cfd 0.2.1 still calls it; JAX took it out in 0.4.36
    jax.tree_map = jax.tree.map


def transition(n, reynolds, step, n_steps):
    """n_steps explicit steps of one member, arrays (2, ny, nx): the set-up of jax-cfd's own demos."""
    grid = cfd.grids.Grid((n, n), domain=((0, 2 * np.pi), (0, 2 * np.pi)))
    periodic = cfd.boundaries.periodic_boundary_conditions(2)
    forcing = cfd.forcings.sum_forcings(
        cfd.forcings.kolmogorov_forcing(grid, scale=1.0, k=4), cfd.forcings.linear_forcing(grid, -0.1)
    )
    advance = cfd.equations.semi_implicit_navier_stokes(
        density=1.0, viscosity=1 / reynolds, dt=step, grid=grid, forcing=forcing
    )

    def run(x):
        v = cfd.initial_conditions.wrap_variables((x[0].T, x[1].T), grid, (periodic, periodic))
        v = jax.lax.fori_loop(0, n_steps, lambda i, v: advance(v), v)
        return jnp.stack([v[0].data.T, v[1].data.T])

    return jax.jit(jax.vmap(run))


def main():
    given, out, calls = np.load(sys.argv[1]), {}, {}
    for n in given["sizes"]:
        n, n_steps = int(n), int(given[f"n_steps_{n}"])
        run = transition(n, float(given["reynolds"]), float(given["dt"]) / n_steps, n_steps)
        x = start = jnp.asarray(given[f"x_{n}"], jnp.float32)
        for _ in range(int(given["n_check"])):
            x = run(x)
        out[f"x_{n}"] = np.asarray(x)
        calls[n] = lambda run=run, start=start: run(start).block_until_ready()
    out["version"] = jax.__version__
    np.savez(sys.argv[2], **out)
    print("ready", flush=True)
    for line in sys.stdin:
        n, burst = line.split()
        count, begin, cpu = 0, time.perf_counter(), time.process_time()
        while count == 0 or time.perf_counter() - begin < float(burst):
            calls[int(n)]()
            count += 1
        print((time.perf_counter() - begin) / count, (time.process_time() - cpu) / count, flush=True)


if __name__ == "__main__":
    main()
