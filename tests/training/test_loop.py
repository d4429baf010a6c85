"""The training loop on problems whose answer is known without it."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from masf_jax.training import FitConfig, fit, pretrain

ALL = {"validation_fraction": 0.0, "weight_decay": 0.0, "ema_decay": None}


def distance(params, key, batch):
    return jnp.mean((params["a"][None] - batch) ** 2)


def start(value=0.0):
    return {"a": jnp.full(2, value)}


def run(config, data, loss=distance, params=None, validation=None, seed=0):
    key = jax.random.key(seed)
    call = jax.jit(lambda p, d, v: fit(key, loss, p, d, config, validation=v))
    return call(start() if params is None else params, data, validation)


def test_finds_the_minimum(key):
    data = 1.0 + 0.1 * jax.random.normal(key, (64, 2))
    params, history = run(FitConfig(learning_rate=0.05, steps=400, batch_size=16), data)
    np.testing.assert_allclose(params["a"], jnp.mean(data, axis=0), atol=0.05)
    assert int(history.steps) == 400
    assert int(history.skipped) == 0
    assert history.loss.shape == (20,)
    assert history.validation_loss.shape == (21,)
    assert float(history.validation_loss[0]) > 0.5 > 0.05 > float(jnp.min(history.validation_loss))


@pytest.mark.slow
def test_double_precision(x64):
    data = jnp.ones((8, 2), jnp.float64)
    params, history = run(
        FitConfig(learning_rate=0.1, steps=50), data, params={"a": jnp.zeros(2, jnp.float64)}
    )
    assert params["a"].dtype == jnp.float64
    assert history.loss.dtype == jnp.float64
    assert float(history.loss[-1]) < 0.1 * float(history.loss[0])


@pytest.mark.quick_cases("constant")
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_is_adamw_with_clipping_schedule_and_average(key, schedule):
    """Step for step what Optax does, and e ← d_k e + (1 - d_k) p with d_k = min(d, k/(k + 9))."""
    data = jax.random.normal(key, (6, 2)) + 3.0
    config = FitConfig(
        learning_rate=0.1, weight_decay=0.2, ema_decay=0.3, clip=0.5, steps=7, batch_size=6,
        schedule=schedule, warmup_steps=3, validation_fraction=0.0, validate_every=2,
    )  # fmt: skip
    got, _ = run(config, data, params=start(1.0))

    def rate(k):
        if k < 3:
            return 0.1 * k / 3
        return 0.1 * (0.5 * (1 + np.cos(np.pi * (k - 3) / 4)) if schedule == "cosine" else 1.0)

    params = average = start(1.0)
    with jax.numpy_dtype_promotion("standard"):
        state = optax.scale_by_adam(0.9, 0.99).init(params)
        for k in range(7):
            gradient = jax.grad(distance)(params, None, data)
            gradient = jax.tree.map(lambda g: g * min(1.0, 0.5 / float(jnp.linalg.norm(g))), gradient)
            update, state = optax.scale_by_adam(0.9, 0.99).update(gradient, state)
            params = jax.tree.map(lambda p, u: p - rate(k) * (u + 0.2 * p), params, update)  # noqa: B023
            d = min(0.3, (k + 1) / (k + 10))
            average = jax.tree.map(lambda e, p: d * e + (1 - d) * p, average, params)  # noqa: B023
    np.testing.assert_allclose(got["a"], average["a"], rtol=1e-5)


def test_a_step_of_muon(key):
    """Of a convolution's kernel, as a (3·4, 5) matrix: the gradient's own singular vectors, and all singular
    values the same but for Newton-Schulz (.7 to 1.2 of it), to an RMS of .2; of a bias as Adam's
    first with Nesterov's momentum, sign(g) (1 + b1 (1 - b1)/(1 - b1²))."""
    keys = jax.random.split(key, 3)
    params = {"kernel": jax.random.normal(keys[0], (3, 4, 5)), "bias": jnp.zeros(5)}
    data = jax.random.normal(keys[1], (8, 3, 4))
    wanted = jax.random.normal(keys[2], (3, 4, 5))

    def loss(params, key, batch):
        off = jnp.einsum("bkc,kcd->bd", batch, params["kernel"] - wanted) + params["bias"][None]
        return jnp.mean(off**2)

    config = FitConfig(0.1, optimiser="muon", steps=1, batch_size=8, schedule="constant", clip=None, **ALL)
    got, _ = run(config, data, loss, params)
    slope = jax.grad(loss)(params, None, data)
    first = 0.1 * (1 + 0.9 * 0.1 / (1 - 0.9**2))
    np.testing.assert_allclose(got["bias"], -first * jnp.sign(slope["bias"]), rtol=1e-4)
    u, s, vt = np.linalg.svd(np.reshape(slope["kernel"], (12, 5)), full_matrices=False)
    assert s[0] > 2 * s[-1]
    step = np.reshape(params["kernel"] - got["kernel"], (12, 5)) / (0.1 * 0.2 * np.sqrt(12))
    along = u.T @ step @ vt.T
    assert np.all((np.diag(along) > 0.6) & (np.diag(along) < 1.3))
    np.testing.assert_allclose(step, u @ np.diag(np.diag(along)) @ vt, atol=0.02)


def test_keeps_the_best_and_stops_early():
    """Trained towards 1 and judged at 0.3: the best is on the way there."""
    config = FitConfig(
        learning_rate=0.02,
        steps=400,
        schedule="constant",
        validate_every=5,
        patience=3,
        **ALL | {"clip": None},
    )
    params, history = run(config, jnp.ones((4, 2)), validation=jnp.full((4, 2), 0.3))
    validation = np.asarray(history.validation_loss)
    assert int(history.best_round) == np.nanargmin(validation)
    np.testing.assert_allclose(
        float(distance(params, None, jnp.full((1, 2), 0.3))), np.nanmin(validation), rtol=1e-5
    )
    np.testing.assert_allclose(params["a"], 0.3, atol=0.06)
    assert int(history.steps) == 5 * (int(history.best_round) + 3)
    assert np.isnan(validation[int(history.best_round) + 4 :]).all()


def test_never_returns_worse_than_it_began_with():
    config = FitConfig(learning_rate=0.1, steps=20, **ALL)
    params, history = run(config, jnp.ones((4, 2)), validation=jnp.zeros((4, 2)))
    np.testing.assert_array_equal(params["a"], jnp.zeros(2))
    assert int(history.best_round) == 0


def test_without_validation_the_last_is_returned():
    params, history = run(FitConfig(learning_rate=0.1, steps=21, **ALL), jnp.ones((4, 2)))
    assert int(history.best_round) == len(history.loss) == 11
    assert np.isnan(np.asarray(history.validation_loss)).all()
    assert float(params["a"][0]) > 0.5


def bad_gradient(params, key, batch):
    """Where the batch is -1 the loss is finite, but its gradient is 0/0."""
    root = jnp.sqrt((batch[0, 0] + 1.0) * jnp.sum(params["a"] ** 2))
    return distance(params, key, jnp.ones((1, 2))) + 1e-3 * root


@pytest.mark.quick_cases("distance-inf")
@pytest.mark.parametrize(("loss", "value"), [(distance, jnp.nan), (distance, jnp.inf), (bad_gradient, -1.0)])
def test_steps_that_are_not_finite_change_nothing(loss, value):
    """One of four samples is bad and batches hold one: every epoch skips one step, and the rest is as
    if there had been no such step."""
    config = FitConfig(
        learning_rate=0.05, steps=12, batch_size=1, schedule="constant", **ALL | {"ema_decay": 0.5}
    )
    data = jnp.ones((4, 2)).at[2].set(value)
    params, history = run(config, data, loss, params=start(0.2))
    assert int(history.skipped) == 3
    assert np.isfinite(np.asarray(history.loss)).sum() >= 9
    assert (np.asarray(params["a"]) > 0.2).all()
    assert (np.asarray(params["a"]) < 1.0).all()


@pytest.mark.slow
def test_nothing_finite_leaves_the_parameters_alone():
    config = FitConfig(learning_rate=0.1, steps=6, batch_size=2, ema_decay=0.9, validation_fraction=0.25)
    params, history = run(config, jnp.full((8, 2), jnp.nan), params=start(0.7))
    np.testing.assert_array_equal(params["a"], start(0.7)["a"])
    assert int(history.skipped) == 6


def test_fewer_samples_than_a_batch():
    params, _ = run(FitConfig(learning_rate=0.1, steps=60, batch_size=32, **ALL), jnp.ones((3, 2)))
    np.testing.assert_allclose(params["a"], 1.0, atol=0.05)


@pytest.mark.slow
def test_pretrain_is_fit(key, capsys):
    data = {"x": 1.0 + 0.1 * jax.random.normal(key, (30, 2))}
    config = FitConfig(learning_rate=0.02, steps=33, batch_size=4, validate_every=5, patience=4)

    def loss(params, key, batch):
        return distance(params, key, batch["x"] + 0.1 * jax.random.normal(key, batch["x"].shape))

    expected = run(config, data, loss, seed=5)
    got = pretrain(jax.random.key(5), loss, start(), data, config, progress=True)
    chex.assert_trees_all_close(got, expected, rtol=1e-6)
    assert "steps" in capsys.readouterr().out
    pretrain(jax.random.key(5), loss, start(), data, config)
    assert capsys.readouterr().out == ""


def test_one_program_inside_a_loop(key):
    """Training in every cycle of a scan is traced once, whatever the numbers are."""

    @jax.jit
    @chex.assert_max_traces(n=1)
    def cycles(config, params, data):
        def cycle(params, k):
            return fit(jax.random.fold_in(key, k), distance, params, data, config)

        return jax.lax.scan(cycle, params, jnp.arange(3, dtype=jnp.uint32))

    for rate in (0.1, 0.01):
        config = FitConfig(learning_rate=jnp.asarray(rate), steps=20, batch_size=4)
        params, history = cycles(config, start(), jnp.ones((10, 2)))
        assert history.steps.tolist() == [20] * 3
        assert 0 < float(params["a"][0]) < 1.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"learning_rate": -1.0}, "learning_rate must be .*, got -1.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be .*, got nan"),
        ({"weight_decay": -0.1}, "weight_decay must be .*, got -0.1"),
        ({"ema_decay": 1.5}, "ema_decay must be .*, got 1.5"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"warmup_steps": 1000}, "below steps=1000, got 1000"),
        ({"validation_fraction": 1.0}, "below 1, got 1.0"),
        ({"schedule": "linear"}, "'cosine' or 'constant', got 'linear'"),
        ({"optimiser": "sgd"}, "one of adamw, muon; got 'sgd'"),
    ],
)
def test_settings_refused(change, message):
    with pytest.raises(ValueError, match=message):
        FitConfig(**change)


def test_data_refused(key):
    with pytest.raises(ValueError, match="leaves none for training"):
        fit(key, distance, start(), jnp.ones((1, 2)), FitConfig())
    with pytest.raises(ValueError, match=r"same number of samples.*got \[2, 3\]"):
        fit(key, distance, start(), (jnp.ones((2, 2)), jnp.ones((3, 2))), FitConfig())
    with pytest.raises(ValueError, match=r"at least one.*got \[0\]"):
        fit(key, distance, start(), jnp.ones((0, 2)), FitConfig())
