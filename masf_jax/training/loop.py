"""Training as one compiled loop, fit for use inside another compiled program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from .config import FitConfig
from .history import History
from .progress import progress_bar

__all__ = ["Loss", "fit", "pretrain"]

Loss = Callable[[Any, PRNGKeyArray, Any], Float[Array, ""]]


class _State(eqx.Module):
    """What a round hands to the next."""

    params: Any
    optimiser: Any
    averaged: Any
    best: Any
    best_loss: Float[Array, ""]
    since_best: Int[Array, ""]
    round: Int[Array, ""]
    order: Int[Array, " samples"]
    history: History


class _Problem(eqx.Module):
    """What all rounds share."""

    training: Any
    validation: Any
    config: FitConfig
    key_steps: PRNGKeyArray
    key_validation: PRNGKeyArray
    loss: Loss = eqx.field(static=True)

    def unfinished(self, state: _State) -> Bool[Array, ""]:
        go_on = state.round < self.config.rounds
        if self.config.patience is not None and self.validation is not None:
            go_on &= state.since_best < self.config.patience
        return go_on

    def start(self, params: Any) -> _State:
        """The state before any step; the parameters it begins with are the best so far."""
        config = self.config
        initial = self.validation_loss(params)
        nothing = jnp.full(config.rounds, jnp.nan, initial.dtype)
        zero = jnp.zeros((), jnp.int32)
        losses = jnp.append(initial, nothing)
        return _State(
            params=params,
            optimiser=config.optimiser().init(params),
            averaged=None if config.ema_decay is None else params,
            best=None if self.validation is None else params,
            best_loss=jnp.where(jnp.isfinite(initial), initial, jnp.inf),
            since_best=zero,
            round=zero,
            order=jnp.arange(_length(self.training), dtype=jnp.int32),
            history=History(nothing, losses, zero, zero, zero),
        )

    def validation_loss(self, params: Any) -> Float[Array, ""]:
        """Mean over nearly equal batches that leave out as few samples as possible; NaN without samples."""
        if self.validation is None:
            batch = jax.eval_shape(lambda: _rows(self.training, jnp.arange(1)))
            return jnp.full((), jnp.nan, jax.eval_shape(self.loss, params, self.key_validation, batch).dtype)
        count = _length(self.validation)
        batches = -(-count // self.config.batch_size)
        size = count // batches
        rows = jnp.tile(jnp.arange(batches * size).reshape(batches, size), (self.config.validation_draws, 1))

        def one(carry: None, item: tuple[Array, Array]) -> tuple[None, Array]:
            number, chosen = item
            key = jax.random.fold_in(self.key_validation, number)
            return carry, self.loss(params, key, _rows(self.validation, chosen))

        return jnp.mean(jax.lax.scan(one, None, (jnp.arange(len(rows)), rows))[1])

    def step(self, number: Array, carry: tuple) -> tuple:
        """One optimiser step, or none if the loss or its gradient is not finite."""
        params, optimiser, averaged, order, total, taken = carry
        config = self.config
        count = _length(self.training)
        batches = max(1, count // config.batch_size)
        epoch, position = number // batches, number % batches
        key = jax.random.fold_in(self.key_steps, number)
        key_order = jax.random.fold_in(jax.random.fold_in(self.key_steps, config.steps), epoch)
        order = jax.lax.cond(
            position == 0, lambda: jax.random.permutation(key_order, count).astype(order.dtype), lambda: order
        )
        chosen = order[
            (position * config.batch_size + jnp.arange(config.batch_size, dtype=jnp.int32)) % count
        ]
        loss, gradient = jax.value_and_grad(self.loss)(params, key, _rows(self.training, chosen))
        good = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(gradient))

        with jax.numpy_dtype_promotion("standard"):  # Optax mixes integers and floats
            updates, new_optimiser = config.optimiser().update(gradient, optimiser, params)
            new_params = optax.apply_updates(params, updates)
        params = _choose(good, new_params, params)
        optimiser = _choose(good, new_optimiser, optimiser)
        taken = taken + good.astype(jnp.int32)
        if averaged is not None:
            averaged = _choose(good, _averaged(averaged, params, number + 1, config.ema_decay), averaged)
        return params, optimiser, averaged, order, total + jnp.where(good, loss, 0.0), taken

    def advance(self, state: _State) -> _State:
        """One round: steps up to the next validation, and that."""
        config, history = self.config, state.history
        first = state.round * config.round_length
        last = jnp.minimum(first + config.round_length, config.steps)
        zero = jnp.zeros_like(state.best_loss)
        carry = (state.params, state.optimiser, state.averaged, state.order, zero, jnp.zeros((), jnp.int32))
        params, optimiser, averaged, order, total, taken = jax.lax.fori_loop(
            first, last, lambda i, c: self.step(i, c), carry
        )

        result = params if averaged is None else averaged
        validation = self.validation_loss(result)
        better = validation < state.best_loss
        number = state.round + 1
        history = History(
            loss=history.loss.at[state.round].set(total / taken.astype(total.dtype)),
            validation_loss=history.validation_loss.at[number].set(validation),
            best_round=number if self.validation is None else jnp.where(better, number, history.best_round),
            steps=last,
            skipped=history.skipped + (last - first) - taken,
        )
        return _State(
            params=params,
            optimiser=optimiser,
            averaged=averaged,
            best=None if self.validation is None else _choose(better, result, state.best),
            best_loss=jnp.where(better, validation, state.best_loss),
            since_best=jnp.where(better, 0, state.since_best + 1),
            round=number,
            order=order,
            history=history,
        )

    def result(self, state: _State) -> tuple[Any, History]:
        if self.validation is not None:
            return state.best, state.history
        return (state.params if state.averaged is None else state.averaged), state.history


def fit(
    key: PRNGKeyArray, loss: Loss, params: Any, data: Any, config: FitConfig, *, validation: Any = None
) -> tuple[Any, History]:
    """Parameters that make the loss small on the data, and the history of the search.

    AdamW steps on minibatches; at each validation the (averaged) parameters are kept if they are the best so
    far, those it began with included, and the best are returned. Without validation samples the last are. A
    step whose loss or gradient is not finite changes nothing and is counted. Early stopping ends the
    loop, not only its effect. Not compiled by itself: call it within `jax.jit`, where it may be one part of
    a larger program; not reverse-differentiable.

    Args:
        loss: A scalar from (params, key, batch), where batch is a tree as `data` with `config.batch_size`
            rows; in validation with fewer.
        data: A tree of arrays whose first axis counts samples.
        validation: Samples to validate on. By default a random share of `data` is held back: pass some if
            neighbouring samples are alike, as states along one trajectory are.

    Raises:
        ValueError: Arrays of `data` differ in their number of samples, or no sample is left for training.
    """
    problem = _problem(key, loss, data, config, validation)
    # lambdas: JAX hashes what it is given, and a bound method of a module with arrays has no hash
    state = jax.lax.while_loop(
        lambda state: problem.unfinished(state), lambda state: problem.advance(state), problem.start(params)
    )
    return problem.result(state)


def pretrain(
    key: PRNGKeyArray,
    loss: Loss,
    params: Any,
    data: Any,
    config: FitConfig,
    *,
    validation: Any = None,
    progress: bool = False,
) -> tuple[Any, History]:
    """`fit` with a program of its own per round, run from the host: the same result, and a progress bar.

    Args and errors as for `fit`.
    """
    problem = _problem(key, loss, data, config, validation)
    state = eqx.filter_jit(_start)(problem, params)
    advance = eqx.filter_jit(_advance, donate="all-except-first")
    with progress_bar(config.steps, progress) as report:
        while problem.unfinished(state):
            state = advance(problem, state)
            report(state.history)
    return problem.result(state)


def _start(problem: _Problem, params: Any) -> _State:
    # copies: without validation, averaging or both, leaves would be shared, and donated twice
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), problem.start(params))


def _advance(problem: _Problem, state: _State) -> _State:
    return problem.advance(state)


def _problem(key: PRNGKeyArray, loss: Loss, data: Any, config: FitConfig, validation: Any) -> _Problem:
    key_split, key_steps, key_validation = jax.random.split(key, 3)
    count = _length(data)
    held = config.held_back(count)
    if validation is None and held:
        if held >= count:
            raise ValueError(
                f"validation_fraction={config.validation_fraction} of {count} samples leaves none for "
                "training; give more samples or validation_fraction=0"
            )
        order = jax.random.permutation(key_split, count)
        validation, data = _rows(data, order[:held]), _rows(data, order[held:])
    return _Problem(data, validation, config, key_steps, key_validation, loss)


def _length(data: Any) -> int:
    """Number of samples in a tree of arrays."""
    lengths = {leaf.shape[0] for leaf in jax.tree.leaves(data)}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            "all arrays of the training data need the same number of samples, at least one, as their first "
            f"axis; got {sorted(lengths) or 'no arrays'}"
        )
    return lengths.pop()


def _rows(data: Any, chosen: Array) -> Any:
    return jax.tree.map(lambda leaf: leaf[chosen], data)


def _choose(good: Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)


def _averaged(average: Any, params: Any, number: Array, decay: Any) -> Any:
    """e ← d e + (1 - d) p, d = min(decay, k/(k + 9))."""

    def one(e: Array, p: Array) -> Array:
        d = jnp.minimum(jnp.asarray(decay, e.dtype), (number / (number + 9)).astype(e.dtype))
        return d * e + (1 - d) * p

    return jax.tree.map(one, average, params)
