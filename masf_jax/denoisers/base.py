"""The contract of a denoiser: what is known of x0 once a noisy version of it is seen."""

from __future__ import annotations

import abc

import equinox as eqx
from jaxtyping import Array, Float, Int, PRNGKeyArray

__all__ = ["Denoiser"]


class Denoiser(eqx.Module):
    """D(x, φ) ≈ E[x0 | x] for ONE member, where x = cos φ · x0 + sin φ · η, η ~ N(0, I).

    The noise level φ is an angle in [0, π/2] per component (a *noise-level map*): 0 where x0 is seen
    exactly, π/2 where nothing of it is seen. Any linear process with independent noise per component is of
    this form after scaling: g x0 + s η, divided by √(g² + s²), has φ = atan2(s, g). An angle, because
    both cos φ and sin φ keep their relative precision near either end.
    """

    @property
    def ignores_noise(self) -> bool:
        """Whether components of x at φ = π/2, pure noise, do not change what is known of x0.

        True for the closed forms; a learned denoiser only approximates it.
        """
        return False

    @property
    def by_components(self) -> bool:
        """Whether several devices best make the draws of all members by components (else by members)."""
        return False

    @abc.abstractmethod
    def __call__(self, x: Float[Array, "*x"], angle: Float[Array, "*x"]) -> Float[Array, "*x"]:
        """The mean of x0 given x."""

    def sample(
        self, key: PRNGKeyArray, x: Float[Array, "*x"], angle: Float[Array, "*x"]
    ) -> Float[Array, "*x"]:
        """A draw of x0 given x; where a denoiser knows no covariance, its mean."""
        return self(x, angle)

    def for_member(self, member: Float[Array, "*x"]) -> Denoiser:
        """This denoiser for the analysis of one forecast member; most treat all alike."""
        return self

    def knowing(self, angle: Float[Array, "*x"]) -> Denoiser:
        """This denoiser with what is the same for all members at diffusion time 1, of these noise levels."""
        return self

    def at_end(self) -> Denoiser:
        """This denoiser for diffusion time 1 alone: what is known there already is not found again."""
        return self

    def numbered(self, index: Int[Array, ""]) -> Denoiser:
        """This denoiser where `for_member` will be given member number `index` of the forecast."""
        return self
