"""Training as one compiled loop, fit for use inside another compiled program."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ..arrays import check_key
from ..derivatives import without_derivative
from .config import FitConfig
from .history import History
from .progress import progress_bar
from .trees import Kept, identity

__all__ = ["Loss", "fit", "pretrain"]

_TRAINED = (
    "training has no derivative by its data: train beforehand, outside of what is differentiated "
    "(AmortisedMASF; a prior or denoiser with its parameters), or take a filter that trains nothing."
)

Loss = Callable[[Any, PRNGKeyArray, Any], Float[Array, ""]]


class _State(eqx.Module):
    """What a round hands to the next; parameters as one vector, so that the optimiser is a few operations."""

    params: Float[Array, " parameters"]
    optimiser: Any
    averaged: Float[Array, " parameters"] | None
    best: Float[Array, " parameters"] | None
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
    tree: Callable[[Array], Any] = eqx.field(static=True)  # parameters from their vector

    def unfinished(self, state: _State) -> Bool[Array, ""]:
        go_on = state.round <= self.config.rounds
        if self.config.patience is not None and self.validation is not None:
            go_on &= state.since_best < self.config.patience
        return go_on

    def start(self, params: Array) -> _State:
        """The state before anything; round 0 takes no step, but validates the parameters it begins with."""
        config = self.config
        batch = jax.eval_shape(lambda: _rows(self.training, jnp.arange(1)))
        dtype = jax.eval_shape(self.loss, self.tree(params), self.key_validation, batch).dtype
        zero = jnp.zeros((), jnp.int32)
        losses, validation = (jnp.full(config.rounds + extra, jnp.nan, dtype) for extra in (0, 1))
        return _State(
            params=params,
            optimiser=_of_vectors(config, self.tree).init(params),
            averaged=None if config.ema_decay is None else params,
            best=None if self.validation is None else params,
            best_loss=jnp.full((), jnp.inf, dtype),
            since_best=zero,
            round=zero,
            order=jnp.arange(_length(self.training), dtype=jnp.int32),
            history=History(losses, validation, zero, zero, zero),
        )

    def validation_loss(self, params: Array) -> Float[Array, ""]:
        """Mean over nearly equal batches that leave out as few samples as possible."""
        count = _length(self.validation)
        batches = -(-count // self.config.batch_size)
        size = count // batches
        rows = jnp.tile(jnp.arange(batches * size).reshape(batches, size), (self.config.validation_draws, 1))

        def one(carry: None, item: tuple[Array, Array]) -> tuple[None, Array]:
            number, chosen = item
            key = jax.random.fold_in(self.key_validation, number)
            return carry, self.loss(self.tree(params), key, _rows(self.validation, chosen))

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
        batch = _rows(self.training, chosen)
        loss, gradients = jax.value_and_grad(self.loss)(self.tree(params), key, batch)
        gradient = ravel_pytree(gradients)[0]
        good = jnp.isfinite(loss) & jnp.isfinite(jnp.linalg.norm(gradient))

        with jax.numpy_dtype_promotion("standard"):  # Optax mixes integers and floats
            updates, new_optimiser = _of_vectors(config, self.tree).update(gradient, optimiser, params)
        params = jnp.where(good, params + updates, params)
        optimiser = _choose(good, new_optimiser, optimiser)
        taken = taken + good.astype(jnp.int32)
        if averaged is not None:
            averaged = jnp.where(good, _averaged(averaged, params, number + 1, config.ema_decay), averaged)
        return params, optimiser, averaged, order, total + jnp.where(good, loss, 0.0), taken

    def advance(self, state: _State) -> _State:
        """One round: steps up to the next validation, and that."""
        config, history = self.config, state.history
        first = jnp.maximum(state.round - 1, 0) * config.round_length
        last = jnp.minimum(state.round * config.round_length, config.steps)
        zero = jnp.zeros_like(state.best_loss)
        carry = (state.params, state.optimiser, state.averaged, state.order, zero, jnp.zeros((), jnp.int32))
        params, optimiser, averaged, order, total, taken = jax.lax.fori_loop(
            first, last, lambda i, c: self.step(i, c), carry
        )
        mean = total / taken.astype(total.dtype)
        history = History(
            loss=jnp.where(jnp.arange(config.rounds, dtype=jnp.int32) == state.round - 1, mean, history.loss),
            validation_loss=history.validation_loss,
            best_round=state.round,
            steps=last,
            skipped=history.skipped + (last - first) - taken,
        )
        best, best_loss, since_best = state.best, state.best_loss, state.since_best
        if best is not None:
            result = params if averaged is None else averaged
            validation = self.validation_loss(result)
            better = validation < best_loss
            best = jnp.where(better, result, best)
            best_loss = jnp.where(better, validation, best_loss)
            since_best = jnp.where(better, 0, since_best + 1)
            history = dataclasses.replace(
                history,
                validation_loss=history.validation_loss.at[state.round].set(validation),
                best_round=jnp.where(better, state.round, state.history.best_round),
            )
        return _State(
            params=params,
            optimiser=optimiser,
            averaged=averaged,
            best=best,
            best_loss=best_loss,
            since_best=since_best,
            round=state.round + 1,
            order=order,
            history=history,
        )

    def result(self, state: _State) -> tuple[Any, History]:
        if state.best is not None:
            return self.tree(state.best), state.history
        return self.tree(state.params if state.averaged is None else state.averaged), state.history


def fit(
    key: PRNGKeyArray, loss: Loss, params: Any, data: Any, config: FitConfig, *, validation: Any = None
) -> tuple[Any, History]:
    """Parameters that make the loss small on the data, and the history of the search.

    Steps of `config.optimiser` on minibatches; at each validation the (averaged) parameters are kept if they
    are the best so far, those it began with included, and the best are returned. Without validation samples
    the last are. A step whose loss or gradient is not finite changes nothing and is counted. Early stopping
    ends the loop, not only its effect. Not compiled by itself: call it within `jax.jit`, where it may be one
    part of a larger program. It has no derivative.

    Args:
        loss: A scalar from (params, key, batch), where batch is a tree as `data` with `config.batch_size`
            rows; in validation with fewer.
        data: A tree of arrays whose first axis counts samples.
        validation: Samples to validate on. By default a random share of `data` is held back: pass some if
            neighbouring samples are alike, as states along one trajectory are.

    Raises:
        ValueError: Arrays of `data` differ in their number of samples, no sample is left for training, or
            parameters of less than four bytes.
    """
    check_key(key)
    params, data, validation = without_derivative(_TRAINED, (params, data, validation))
    problem, start = _problem(key, loss, params, data, config, validation)
    # lambdas: JAX hashes what it is given, and a bound method of a module with arrays has no hash
    state = jax.lax.while_loop(
        lambda state: problem.unfinished(state), lambda state: problem.advance(state), problem.start(start)
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
    kept: Kept | None = None,
) -> tuple[Any, History]:
    """`fit` with a program of its own per round, run from the host: the same result, and a progress bar.

    Args and errors as for `fit`.
        kept: where the state after a round is kept; a training that was ended goes on from there.
    """
    check_key(key)
    problem, start = _problem(key, loss, params, data, config, validation)
    state = eqx.filter_jit(_start)(problem, start)
    about = "" if kept is None else identity((problem, start))
    if kept is not None and (found := kept.read(state, about)) is not None:
        state = found
    advance = eqx.filter_jit(_advance, donate="all-except-first")
    with progress_bar(config.steps, progress) as report:
        while problem.unfinished(state):
            state = advance(problem, state)
            if kept is not None:
                kept.write(state, about, last=not problem.unfinished(state))
            report(state.history)
    return problem.result(state)


def _of_vectors(config: FitConfig, tree: Callable[[Array], Any]) -> optax.GradientTransformation:
    """The optimiser of parameters as one vector: AdamW knows no shapes, the others see the tree."""
    inner = config.transformation()
    if config.optimiser == "adamw":
        return inner

    def update(gradient: Array, state: Any, params: Array) -> tuple[Array, Any]:
        updates, state = inner.update(tree(gradient), state, tree(params))
        return ravel_pytree(updates)[0], state

    return optax.GradientTransformation(lambda params: inner.init(tree(params)), update)  # pyright: ignore[reportArgumentType]


def _start(problem: _Problem, params: Array) -> _State:
    # copies: without validation, averaging or both, leaves would be shared, and donated twice
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), problem.start(params))


def _advance(problem: _Problem, state: _State) -> _State:
    return problem.advance(state)


def _problem(
    key: PRNGKeyArray, loss: Loss, params: Any, data: Any, config: FitConfig, validation: Any
) -> tuple[_Problem, Array]:
    """What there is to do, and the vector of the parameters to begin with."""
    half = [leaf.dtype.name for leaf in jax.tree.leaves(params) if leaf.dtype.itemsize < 4]
    if half:
        raise ValueError(
            f"parameters in {half[0]} lose the small steps of a training: train in float32 (the network may "
            "compute in bfloat16: its dtype), and change the type of what is trained (denoisers.in_type)."
        )
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
    start, tree = ravel_pytree(params)
    return _Problem(data, validation, config, key_steps, key_validation, loss, tree), start


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


def _averaged(average: Array, params: Array, number: Array, decay: Any) -> Array:
    """e ← d e + (1 - d) p, d = min(decay, k/(k + 9))."""
    d = jnp.minimum(jnp.asarray(decay, average.dtype), (number / (number + 9)).astype(average.dtype))
    return d * average + (1 - d) * params
