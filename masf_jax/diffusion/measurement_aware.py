"""The measurement-aware process of the MASF paper: the state turns into its measurement."""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Scalar

from ..bases import FourierBasis, MatrixBasis
from ..measurements.measurement import Measurement
from .process import Frame, Process, ProcessFamily
from .schedules import cosine_schedule
from .whitened import DENSE_LIMIT, check_structure, whitened

__all__ = ["MeasurementAware", "MeasurementAwareProcess", "measurement_aware"]


class MeasurementAwareProcess(Process):
    """X_t = a_t X_0 + (1 - a_t) H X_0 + Σ_t^{1/2} η, Σ_t = (1 - a_t²) R, in coordinates where H is diagonal.

    X is the state in units of the frame, less the frame's centre; H = diag(h) and R = diag(r²) there, so

        g(t) = a_t + (1 - a_t) h,   s(t) = r √(1 - a_t²),   X_1 = z:

    A_t and Σ_t of the paper (its B_t is in the centre). Where a mask measures nothing, h = 0 and the process
    ends in pure noise. Source: Yoon, Chang, Kim & Kim, arXiv 2604.02889.

    Args:
        eigenvalues: h, in [0, 1]: below 0 the process cannot be inverted at some t, and above 1 its
            transitions have no variance left.
        noise_std: r > 0.
        schedule_offset: s of `cosine_schedule`, which gives a_t.
    """

    frame: Frame
    measured: Float[Array, "*v"]
    observed: Bool[Array, "*v"]
    eigenvalues: Float[Array, "*v"]
    noise_std: Float[Array, "*v"]
    schedule_offset: float = eqx.field(static=True, default=0.008)

    def gain(self, t: Scalar) -> Float[Array, "*v"]:
        a = cosine_schedule(t, self.schedule_offset)
        return a + (1 - a) * self.eigenvalues

    def std(self, t: Scalar) -> Float[Array, "*v"]:
        a = cosine_schedule(t, self.schedule_offset)
        return jnp.sqrt(jnp.maximum(1 - a**2, 0.0)) * self.noise_std

    def variance(self, t: Scalar) -> Float[Array, "*v"]:
        a = cosine_schedule(t, self.schedule_offset)
        return (1 - a**2) * self.noise_std**2


def measurement_aware(
    measurement: Measurement,
    z: Float[Array, "*z"],
    mask: Bool[Array, "*z"],
    centre: Float[Array, "*x"],
    scale: Float[Array, "..."],
    schedule_offset: float = 0.008,
) -> MeasurementAwareProcess:
    """The paper's process between states around `centre` and the measured values z.

    H must map states to states: an identity, a mask (what it leaves out ends in noise of the mean measured
    noise level), a symmetric convolution, or a square matrix that is symmetric in the metric of R
    (L⁻¹ H L symmetric, R = L Lᵀ). Of the last two nothing counts as measured (h = 0) if any value is missing.

    Raises:
        ValueError: a measurement that is none of these, or an eigenvalue of H outside [0, 1];
            `vp_bridge` takes any linear one.
    """
    structure = measurement.operator.structure
    if structure in ("identity", "mask") and measurement.noise.diagonal:
        problem = whitened(measurement, z, mask, centre, scale)
        s = problem.singular_values
        observed = s > 0
        safe = jnp.where(observed, s, 1.0)
        mean_noise = jnp.where(observed, 1 / safe, 0.0).sum() / jnp.maximum(observed.sum(), 1).astype(s.dtype)
        return MeasurementAwareProcess(
            frame=problem.frame,
            measured=jnp.where(observed, problem.values / safe, 0.0),
            observed=observed,
            eigenvalues=observed.astype(s.dtype),
            noise_std=jnp.where(observed, 1 / safe, mean_noise),
            schedule_offset=schedule_offset,
        )
    frame, eigenvalues, asymmetry, noise_std = _diagonalised(measurement, mask, centre, scale)
    _check(type(measurement.operator).__name__, eigenvalues, asymmetry)
    lifted = (z - measurement.operator(centre)).reshape(centre.shape)
    measured = frame.encode(centre + lifted)
    observed = jnp.broadcast_to(mask.all(), measured.shape)
    return MeasurementAwareProcess(
        frame=frame,
        measured=measured,
        observed=observed,
        eigenvalues=jnp.where(observed, eigenvalues, 0.0),
        noise_std=noise_std,
        schedule_offset=schedule_offset,
    )


class MeasurementAware(ProcessFamily):
    """`measurement_aware`, the paper's process.

    Args:
        schedule_offset: s of `cosine_schedule`.
    """

    keeps_levels: ClassVar[bool] = True
    schedule_offset: float = eqx.field(static=True, default=0.008)

    def __call__(
        self,
        measurement: Measurement,
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        centre: Float[Array, "*x"],
        scale: Float[Array, "..."],
        at: Float[Array, "*x"] | None = None,
        tempering: Scalar | float = 1.0,
    ) -> MeasurementAwareProcess:
        if at is not None:
            raise ValueError("the measurement-aware process needs a linear measurement: it has no tangents.")
        return measurement_aware(measurement, z, mask, centre, scale, self.schedule_offset)

    def check(
        self, measurement: Measurement, state_shape: tuple[int, ...], scale_shape: tuple[int, ...]
    ) -> None:
        check_structure(measurement, scale_shape, state_shape)
        z = jnp.zeros(measurement.output_shape(state_shape))
        self(measurement, z, jnp.ones(z.shape, bool), jnp.zeros(state_shape), jnp.ones(scale_shape))


def _diagonalised(
    measurement: Measurement, mask: Array, centre: Array, scale: Array
) -> tuple[Frame, Array, Array, Array]:
    """A frame in which H and R are diagonal, H's eigenvalues, how far from symmetric H is, and √R there."""
    operator = measurement.operator
    if operator.structure is None or measurement.output_shape(centre.shape) not in (
        centre.shape,
        (centre.size,),
    ):
        raise ValueError(
            f"the measurement-aware process needs a linear measurement of the state's shape {centre.shape}; "
            f"{type(operator).__name__} gives {measurement.output_shape(centre.shape)}, structure "
            f"{operator.structure}. Use the VP bridge."
        )
    wide = jnp.broadcast_to(scale.astype(centre.dtype), centre.shape)

    def h(x: Array) -> Array:
        return jax.jvp(operator, (centre,), (wide * x,))[1].reshape(centre.shape) / wide

    if operator.structure == "fourier":
        basis = FourierBasis(1 if centre.ndim == 1 else 2)
        probe = jax.random.normal(jax.random.key(0), centre.shape, centre.dtype)
        ones = jnp.ones_like(centre)
        eigenvalues = basis.to(h(basis.back(ones)))
        asymmetry = jnp.abs(basis.to(h(basis.back(probe))) - eigenvalues * probe).max()
        white = measurement.noise.whiten(jnp.ones_like(centre))
        return Frame(centre, scale, basis), eigenvalues, asymmetry, 1 / (white * wide)
    n = centre.size
    if n > DENSE_LIMIT:
        raise ValueError(f"{n} components are too many for an {n} × {n} matrix (largest: {DENSE_LIMIT}).")
    eye = jnp.eye(n, dtype=centre.dtype).reshape(n, *centre.shape)
    matrix = jax.vmap(h, out_axes=-1)(eye).reshape(n, n)
    shape = measurement.output_shape(centre.shape)

    def whiten(x: Array) -> Array:
        return measurement.noise.whiten((wide * x.reshape(centre.shape)).reshape(shape)).reshape(-1)

    inverse_root = jax.vmap(whiten, out_axes=-1)(eye)
    root = jnp.linalg.inv(inverse_root)
    turned = inverse_root @ matrix @ root
    eigenvalues, vectors = jnp.linalg.eigh((turned + turned.T) / 2)
    basis = MatrixBasis(root @ vectors, vectors.T @ inverse_root, centre.shape)
    return (
        Frame(centre, scale, basis),
        eigenvalues,
        jnp.abs(turned - turned.T).max(),
        jnp.ones_like(eigenvalues),
    )


def _check(name: str, eigenvalues: Array, asymmetry: Array) -> None:
    """Raises where the process is not valid; inside jit it cannot look, so filters check in `prepare`."""
    if isinstance(eigenvalues, Tracer):
        return
    slack = 1e3 * float(jnp.finfo(eigenvalues.dtype).eps)
    if float(asymmetry) > slack:
        raise ValueError(
            f"the measurement-aware process needs H symmetric in the metric of R; {name} is off by "
            f"{float(asymmetry):.3g}. Use the VP bridge, which takes any linear measurement."
        )
    values = np.asarray(eigenvalues)
    worst = values.ravel()[np.argmax(np.maximum(-values, values - 1))]
    if worst < -slack or worst > 1 + slack:
        raise ValueError(
            f"the measurement-aware process needs every eigenvalue of H in [0, 1] (in the normalised state); "
            f"{name} has {worst:.4g}. Scale the measurement, or use the VP bridge, which takes any."
        )
