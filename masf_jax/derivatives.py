"""Derivatives that exist: those of the same function in a form that has them.

An eigenvector has no derivative where its eigenvalue is another one's too, and hardly one where they are
near; a function of the matrix has. So values come from the eigenvectors (or from conjugate gradients, which
end by a loop that reverse mode refuses), derivatives from products with A^{-1/2}.
"""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.extend.core.primitives import stop_gradient_p
from jax.interpreters import ad
from jax.scipy.linalg import solve_triangular
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Float

__all__ = [
    "NoDerivativeError",
    "at_minimum",
    "constant",
    "differentiated_as",
    "inverse_sqrt",
    "root_or_zero",
    "square_root_analysis",
    "triangular",
    "without_derivative",
]

# `vmap` of a `cond` passes the operands of the branch that is not taken through `stop_gradient`, those of a
# derivative's program too, and JAX has no transpose of it. To values it is the identity, and so is that.
ad.primitive_transposes.setdefault(stop_gradient_p, lambda slope, _: [slope])

Function = TypeVar("Function", bound=Callable[..., Any])
Tree = TypeVar("Tree")


class NoDerivativeError(TypeError):
    """What was asked for has no derivative, or none that would be right."""


def differentiated_as(same: Callable[..., Any]) -> Callable[[Function], Function]:
    """Decorator: a function whose derivatives, by the arrays in its arguments, are those of `same`.

    `same` has the same arguments and values. What either closes over counts as constant.
    """

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def found(*args: Any) -> Any:
            arrays, rest = eqx.partition(args, eqx.is_array)
            now = contextvars.copy_context()  # JAX asks for derivatives later: what was set here is gone then
            run = jax.custom_jvp(lambda arrays: function(*eqx.combine(arrays, rest)))

            @run.defjvp
            def _(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
                def slope() -> Any:
                    return jax.jvp(lambda arrays: same(*eqx.combine(arrays, rest)), primals, tangents)[1]

                return run(*primals), now.copy().run(slope)

            return run(arrays)

        return found  # pyright: ignore[reportReturnType]

    return decorate


def without_derivative(why: str, tree: Tree) -> Tree:
    """`tree` as it is. To differentiate by it raises NoDerivativeError(why), in place of a wrong zero."""

    @jax.custom_jvp
    def same(tree: Any) -> Any:
        return tree

    def refuse(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
        if any(not isinstance(t, SymbolicZero) for t in jax.tree.leaves(tangents, is_leaf=_is_zero)):
            raise NoDerivativeError(why)
        return primals[0], tangents[0]

    same.defjvp(refuse, symbolic_zeros=True)
    arrays, rest = eqx.partition(tree, eqx.is_inexact_array)
    return eqx.combine(same(arrays), rest)


def _is_zero(leaf: Any) -> bool:
    return isinstance(leaf, SymbolicZero)


def constant(function: Callable[..., Any], *like: Any) -> Callable[..., Any]:
    """`function` of arrays as these, what it closes over constant: for loops that have no derivative."""
    program, shapes = jax.make_jaxpr(function, return_shape=True)(*like)
    known = ClosedJaxpr(program.jaxpr, [jax.lax.stop_gradient(each) for each in program.consts])
    return lambda *args: jax.tree.unflatten(
        jax.tree.structure(shapes), jaxpr_as_fun(known)(*jax.tree.leaves(args))
    )


def at_minimum(cost: Callable[[Any], Array], v: Tree) -> Tree:
    """`v`, where `cost` has its minimum, with the minimum's derivatives: dv = -(∇²J)⁻¹ d∇J.

    By conjugate gradients on Hessian-vector products, whatever found v. (Implicit function theorem.)
    """
    v = jax.lax.stop_gradient(v)
    program = jax.make_jaxpr(cost)(v)
    closed_over = program.consts  # arrays of the program around, which derivatives are by

    def pure(v: Any, *closed_over: Any) -> Array:
        return jaxpr_as_fun(ClosedJaxpr(program.jaxpr, list(closed_over)))(*jax.tree.leaves(v))[0]

    @jax.custom_jvp
    def found(v: Any, closed_over: Any) -> Any:
        return v

    @found.defjvp
    def _(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
        v, given = primals

        def slope(v: Any, given: Any) -> Any:
            return jax.grad(pure)(v, *given)

        leaf, *_ = leaves = jax.tree.leaves(v)
        tolerance, most = 100 * float(jnp.finfo(leaf.dtype).eps), 10 * sum(each.size for each in leaves)

        def hessian(u: Any) -> Any:
            return jax.jvp(lambda v: slope(v, given), (v,), (u,))[1]

        def newton(moved: Any) -> Any:
            step, _ = cg(hessian, slope(v, moved), tol=tolerance, maxiter=most)
            return jax.tree.map(jnp.negative, step)

        return v, jax.jvp(newton, (given,), tangents[1:])[1]

    return found(v, closed_over)


def root_or_zero(x: Float[Array, "*x"]) -> Float[Array, "*x"]:
    """√x where x > 0, else 0; of derivative 0 there, not NaN."""
    there = x > 0
    return jnp.where(there, jnp.sqrt(jnp.where(there, x, 1.0)), 0.0)


@jax.custom_jvp
def inverse_sqrt(a: Float[Array, "*batch k k"]) -> Float[Array, "*batch k k"]:
    """A^{-1/2} of symmetric positive definite matrices.

    d A^{-1/2} = V (F ∘ Vᵀ dA V) Vᵀ with F_ij = -1/(r_i r_j (r_i + r_j)) and r = √λ: the divided differences
    of λ^{-1/2}, whether eigenvalues λ coincide or not. (Daletskii & Krein 1951; Higham 2008, theorem 3.11.)
    """
    values, vectors = jnp.linalg.eigh(a)
    return (vectors / jnp.sqrt(values)[..., None, :]) @ jnp.swapaxes(vectors, -1, -2)


@inverse_sqrt.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    values, vectors = jnp.linalg.eigh(primals[0])
    root, turned = jnp.sqrt(values), jnp.swapaxes(vectors, -1, -2)
    r, other = root[..., :, None], root[..., None, :]
    inner = (turned @ tangents[0] @ vectors) / (-r * other * (r + other))
    return (vectors / other) @ turned, vectors @ inner @ turned


def triangular(a: Float[Array, "m n"]) -> Float[Array, "n n"]:
    """R of A = Q R, m ≥ n, of any rank, for what hangs on RᵀR = AᵀA alone.

    Derivatives are those of Qᵀ A, another root of AᵀA: to turn it into a triangle would take R^{-1}.
    """
    return _orthogonal_triangular(a)[1]


@jax.custom_jvp
def _orthogonal_triangular(a: Array) -> tuple[Array, Array]:
    q, r = jnp.linalg.qr(a)
    return q, r


@_orthogonal_triangular.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Any, Any]:
    """dR = Qᵀ dA and, for second derivatives alone, dQ = (I - Q Qᵀ) dA R^{-1}."""
    q, r = _orthogonal_triangular(primals[0])
    moved = q.T @ tangents[0]
    return (q, r), (solve_triangular(r, (tangents[0] - q @ moved).T, trans=1).T, moved)


def square_root_analysis(
    s: Float[Array, "N m"], d: Float[Array, " m"], x: Float[Array, "N n"]
) -> tuple[Float[Array, " N"], Float[Array, "N n"]]:
    """A^{-1} S d and A^{-1/2} x, A = I + S Sᵀ, in the smaller of measurement and ensemble space.

    With B = I + SᵀS and R = B^{-1/2}: A^{-1} S = S R², A^{-1/2} = I - S R² (I + R)^{-1} Sᵀ.
    """
    n, m = s.shape
    if m < n:
        one = jnp.eye(m, dtype=s.dtype)
        r = inverse_sqrt(one + s.T @ s)
        return s @ (r @ (r @ d)), x - s @ (r @ (r @ jnp.linalg.solve(one + r, s.T @ x)))
    r = inverse_sqrt(jnp.eye(n, dtype=s.dtype) + s @ s.T)
    return r @ (r @ (s @ d)), r @ x
