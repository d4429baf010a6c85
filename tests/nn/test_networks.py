"""Sizes, symmetry, precision and the refusals of the networks."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax.nn import MLP, UNet, describe, from_description, parameter_count, products
from masf_jax.nn.attention import dot_product_attention
from masf_jax.nn.convolution import CircularConv, circular_convolution, upsampled_convolution
from masf_jax.nn.embedding import fourier_features, scale_and_shift
from masf_jax.nn.norm import GroupNorm
from masf_jax.nn.products import pad_circular
from masf_jax.nn.resampling import even, resampled

TINY = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (1,), "heads": 2}


def random_params(net, x, t, scale=0.3):
    """Parameters without the zeros of a fresh network, made on the host: nothing to compile."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(net.init, jax.random.key(0), x, t)
    return jax.tree.map(lambda s: jnp.asarray(scale * rng.standard_normal(s.shape), s.dtype), shapes)


def noise(shape, dtype: np.typing.DTypeLike = np.float32):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape).astype(dtype))


@pytest.mark.parametrize(("net", "count"), [(UNet.paper(2), 17.0), (UNet.small(2), 2.8)])
def test_paper_sizes(net, count):
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((64, 64, 2)), jnp.zeros(()))
    assert round(parameter_count(shapes) / 1e6, 1) == count


def test_mlp_size():
    net = MLP(2, width=5, depth=1, embedding=8)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(3), jnp.zeros(()))
    time, film = 2 * (8 * 8 + 8), 8 * 10 + 10
    assert parameter_count(shapes) == time + film + (3 * 5 + 5) + 2 * (5 * 5 + 5) + (5 * 2 + 2)


@pytest.mark.slow
@pytest.mark.parametrize(("space", "shift"), [pytest.param(1, (2,), marks=pytest.mark.slow), (2, (4, 2))])
def test_unet_is_circular(space, shift):
    net = UNet(3, space=space, second_head=1, **TINY)
    x, t = noise((*(8, 12)[:space], 2)), jnp.asarray(0.3)
    params = random_params(net, x, t)
    apply = jax.jit(net.apply)
    axes = tuple(range(space))
    first, second = apply(params, x, t)
    assert first.shape == (*x.shape[:-1], 3)
    assert second.shape == (*x.shape[:-1], 1)
    shifted = apply(params, jnp.roll(x, shift, axes), t)
    for out, moved in zip((first, second), shifted, strict=True):
        assert float(jnp.std(out)) > 0.01
        np.testing.assert_allclose(
            moved, jnp.roll(out, shift, axes), atol=2e-4 * float(jnp.max(jnp.abs(out)))
        )
    assert not np.allclose(apply(params, x, jnp.asarray(0.9))[0], first, rtol=1e-3)


@pytest.mark.slow
def test_batch_is_vmap():
    net = UNet(1, space=1, **TINY)
    x, t = noise((3, 8, 2)), jnp.asarray([0.1, 0.5, 0.9])
    params = random_params(net, x[0], t[0])
    batched = jax.jit(net.apply)(params, x, t)
    np.testing.assert_allclose(batched, jax.jit(jax.vmap(net.apply, (None, 0, 0)))(params, x, t), atol=1e-3)


@pytest.mark.parametrize("stride", [1, 2])
def test_circular_convolution_is_the_sum_it_says(stride):
    x = noise((6, 4, 2))
    layer = CircularConv(3, 2, stride)
    kernel, bias = noise((3, 3, 2, 3)), noise((3,))
    params = {"params": {"Conv_0": {"kernel": kernel, "bias": bias}}}
    got = layer.apply(params, x)
    expected = np.zeros((6, 4, 3), np.float32) + np.asarray(bias)
    for i in range(3):
        for j in range(3):
            expected += np.roll(np.asarray(x), (1 - i, 1 - j), (0, 1)) @ np.asarray(kernel[i, j])
    np.testing.assert_allclose(got, expected[::stride, ::stride], atol=1e-5)


def sum_it_says(kind, x, kernel):
    """Strides 1 and 2, or "up" for each cell twice, from nothing but shifts and products."""
    space = x.ndim - 2
    if kind == "up":
        for axis in range(1, space + 1):
            x = jnp.repeat(x, 2, axis=axis)
    taps = itertools.product(range(3), repeat=space)
    parts = [jnp.roll(x, [1 - k for k in tap], range(1, space + 1)) @ kernel[tap] for tap in taps]
    out = jnp.sum(jnp.stack(parts), axis=0)
    return out[(slice(None), *[slice(None, None, 2 if kind == 2 else 1)] * space)]


def ours(kind, x, kernel):
    return upsampled_convolution(x, kernel) if kind == "up" else circular_convolution(x, kernel, kind)


def assert_same(calculation, tolerance):
    """`calculation` of `ours` and of `sum_it_says`, a tree of arrays each."""
    got, expected = jax.jit(lambda: [calculation(f) for f in (ours, sum_it_says)])()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), got, expected)


@pytest.mark.quick_cases("sizes0-channels0-2", "sizes2-channels2-1", "sizes2-channels2-2")
@pytest.mark.parametrize("kind", [1, 2, "up"])
# the kernel's gradient moves x across, or the gradient
@pytest.mark.parametrize(("sizes", "channels"), [((6,), (3, 2)), ((6, 4), (3, 2)), ((6, 4), (9, 2))])
def test_circular_convolution_and_its_derivatives(kind, sizes, channels, x64):
    for dtype, tolerance in ((np.float32, 1e-4), (np.float64, 1e-12)):
        x = noise((2, *sizes, channels[0]), dtype)
        kernel = noise((3,) * len(sizes) + channels, dtype)
        weights = jax.eval_shape(lambda x, k: sum_it_says(kind, x, k), x, kernel)
        weights = jnp.cos(noise(weights.shape, dtype))

        def calculation(f, x=x, kernel=kernel, weights=weights):
            def loss(x, kernel):
                return jnp.sum(f(kind, x, kernel) * weights)

            forward = jax.jvp(lambda *pair: f(kind, *pair), (x, kernel), (jnp.sin(x), jnp.cos(kernel)))
            return forward, jax.grad(loss, (0, 1))(x, kernel)

        assert_same(calculation, tolerance)


@pytest.mark.parametrize("kind", [1, 2, "up"])
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
def test_circular_convolution_under_vmap_and_in_a_loop(kind, axes):
    x, kernel = noise((3, 2, 6, 3)), noise((3, 3, 3, 2))
    pair = tuple(a if axis == 0 else a[0] for a, axis in zip((x, kernel), axes, strict=True))

    def calculation(f):
        def loss(x, kernel):
            return jnp.sum(jnp.sin(f(kind, x, kernel)))

        def total(pair):
            return jnp.sum(jax.vmap(loss, axes)(*pair))

        def step(pair, _):
            return jax.tree.map(lambda a, b: a - 0.001 * b, pair, jax.grad(total)(pair)), None

        return jax.vmap(jax.grad(loss, (0, 1)), axes)(*pair), jax.lax.scan(step, pair, None, length=2)[0]

    assert_same(calculation, 1e-4)


def test_kernel_gradient_of_a_vmapped_batch_is_one_convolution():
    """Not one kernel a sample, added up afterwards."""
    x, kernel = noise((7, 1, 6, 4, 3)), noise((3, 3, 3, 2))

    def loss(kernel):
        return jnp.sum(jnp.sin(jax.vmap(lambda x: circular_convolution(x, kernel))(x)))

    text = jax.jit(jax.grad(loss)).lower(kernel).as_text()
    assert text.count("stablehlo.convolution") == 2
    assert "7x3x3x3x2" not in text


@pytest.mark.parametrize(
    ("stride", "before", "taps"), [(1, (1, 1), (3, 3)), (2, (1, 1), (3, 3)), (1, (1, 0), (2, 2))]
)
def test_the_kernel_gradient_of_large_arrays_is_that_of_small_ones(stride, before, taps, monkeypatch):
    gradient, x = noise((2, 6 // stride, 4 // stride, 2)), noise((2, 6, 4, 3))
    expected = products._by_kernel(gradient, x, stride, before, taps)
    monkeypatch.setattr(products, "_CACHE", 0)
    monkeypatch.setattr(products, "_WIDE", 0)
    got = jax.jit(products._by_kernel_on_cpu, static_argnums=(2, 3, 4))(gradient, x, stride, before, taps)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_circular_convolution_refusals():
    for stride, sizes in ((3, (6, 6)), (2, (6, 5))):
        with pytest.raises(ValueError, match=f"got stride {stride} for the sizes"):
            circular_convolution(jnp.zeros((1, *sizes, 2)), jnp.zeros((3, 3, 2, 1)), stride)


def test_padding():
    x = jnp.arange(4.0)[:, None]
    np.testing.assert_array_equal(pad_circular(x, (2,), (1,))[:, 0], [2, 3, 0, 1, 2, 3, 0])
    np.testing.assert_array_equal(pad_circular(x, (1,), (0,))[:, 0], [3, 0, 1, 2, 3])


def test_group_norm():
    x = noise((2, 5, 6, 16)) * 3 + 1
    out = GroupNorm(2).apply({"params": {"scale": jnp.full(16, 2.0), "bias": jnp.ones(16)}}, x)
    groups = np.asarray(x).reshape(2, 5, 6, 4, 4)  # 16 channels: 4 groups of 4
    mean = groups.mean((1, 2, 4), keepdims=True)
    expected = (groups - mean) / np.sqrt(groups.var((1, 2, 4), keepdims=True) + 1e-5) * 2 + 1
    np.testing.assert_allclose(out, expected.reshape(x.shape), atol=1e-4)


def test_embedding():
    got = fourier_features(jnp.asarray([0.0, 0.5]), 6, highest=100.0)
    omega = np.array([1.0, 10.0, 100.0])
    np.testing.assert_allclose(got[0], [0, 0, 0, 1, 1, 1], atol=1e-6)
    np.testing.assert_allclose(got[1], [*np.sin(omega / 2), *np.cos(omega / 2)], atol=1e-4)
    with pytest.raises(ValueError, match="even and at least 4, got 5"):
        fourier_features(jnp.zeros(()), 5)
    h = jnp.full((2, 3, 2), 2.0)  # of ones scale and shift could be swapped
    np.testing.assert_allclose(
        scale_and_shift(h, jnp.asarray([[1.0, 2, 3, 4], [0, 0, 0, 0]]))[:, 0], [[7, 10], [2, 2]]
    )


@pytest.mark.slow  # the filters' networks in it: tests/denoisers
def test_bfloat16():
    """Parameters stay float32 and results have the type of x; the values are near the full computation."""
    net, half = (UNet(1, space=1, dtype=dtype, **TINY) for dtype in (None, jnp.bfloat16))
    x, t = noise((8, 1)), jnp.asarray(0.3)
    params = random_params(half, x, t, 0.1)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    full, out = jax.jit(lambda p: (net.apply(p, x, t), half.apply(p, x, t)))(params)
    assert out.dtype == x.dtype
    np.testing.assert_allclose(out, full, atol=0.05 * float(jnp.max(jnp.abs(full))))
    assert not np.array_equal(out, full)


def test_double_precision(x64):
    net = MLP(2, width=8, depth=1, param_dtype=jnp.float64)
    x, t = noise((3,), np.float64), jnp.asarray(0.3)
    assert net.apply(random_params(net, x, t), x, t).dtype == jnp.float64


def test_fresh_network_is_zero():
    x = noise((3,))
    net = MLP(2, width=8, depth=1, second_head=1)
    t = jnp.asarray(0.5)
    first, second = jax.jit(lambda key: net.apply(net.init(key, x, t), x, t))(jax.random.key(0))
    np.testing.assert_array_equal(first, np.zeros(2))
    np.testing.assert_array_equal(second, np.zeros(1))


@pytest.mark.parametrize(
    ("net", "shape", "message"),
    [
        (UNet(1, space=1), (8, 1), r"2 cells at least at the last, but the sizes are \(8,\)"),
        (UNet(1), (16, 5, 1), r"2 cells at least at the last, but the sizes are \(16, 5\)"),
        (UNet(1, space=3), (8, 8, 8, 1), "space=3"),
        (UNet(1), (8, 1), r"channels last, got an array of shape \(8, 1\)"),
        (UNet(1, channels=9, attention=(0,), space=1), (8, 1), r"heads=4 must divide"),
        (UNet(1, attention=(4,), space=1), (8, 1), r"only \[0, 1, 2, 3\]"),
    ],
)
def test_refusals(net, shape, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(shape), jnp.zeros(()))


@pytest.mark.parametrize(("n", "size"), [(5, 6), (6, 5), (41, 42), (7, 12), (12, 7)])
def test_resampling_is_exact_for_waves_that_both_grids_carry(n, size):
    def wave(cells):
        place = 2 * np.pi * np.arange(cells) / cells
        return np.stack([1 + np.cos(2 * place) - 0.3 * np.sin(place), np.sin(2 * place + 1)], -1)

    np.testing.assert_allclose(resampled(jnp.asarray(wave(n)), [size]), wave(size), atol=2e-6)
    field = jnp.asarray(wave(n)[:, None] * wave(n)[None])
    np.testing.assert_allclose(
        resampled(field, [size, size]), wave(size)[:, None] * wave(size)[None], atol=1e-5
    )


def test_an_odd_size_comes_back_from_the_even_one():
    x = noise((2, 7, 9, 3))
    assert even(x, 2).shape == (2, 8, 10, 3)
    np.testing.assert_allclose(resampled(even(x, 2), [7, 9]), x, atol=1e-6)
    assert even(x, 1).shape == (2, 7, 10, 3)
    half = even(x.astype(jnp.bfloat16), 2)
    assert half.dtype == jnp.bfloat16


@pytest.mark.quick_cases("shape0")
@pytest.mark.parametrize("shape", [(61, 2), (62, 2), (29, 30, 2)])
def test_a_unet_takes_any_size_and_a_finer_one_of_the_same_field_alike(shape):
    """Odd at some level: what is smooth on the grid has the result of a grid that is halved exactly."""
    space = len(shape) - 1
    net, t = UNet(2, channels=8, multipliers=(1, 1, 2), blocks=1, space=space), jnp.asarray(0.3)
    sizes = [4 * math.ceil(n / 4) for n in shape[:-1]]

    def field(sizes):
        places = np.meshgrid(*(2 * np.pi * np.arange(n) / n for n in sizes), indexing="ij")
        return jnp.asarray(np.stack([np.cos(sum(places)), np.sin(places[0])], -1), jnp.float32)

    x = field(shape[:-1])
    params = random_params(net, x, t)
    apply = jax.jit(net.apply)
    odd, halved = apply(params, x, t), apply(params, field(sizes), t)
    assert odd.shape == x.shape
    flat = apply(params, jnp.ones_like(x), t)  # the same everywhere, as on any grid
    np.testing.assert_allclose(flat, np.broadcast_to(flat[(0,) * space], flat.shape), atol=1e-4)
    scale = float(jnp.sqrt(jnp.mean(halved**2)))
    apart = resampled(odd, sizes) - halved
    assert float(jnp.sqrt(jnp.mean(apart**2))) < 0.12 * scale


@pytest.mark.parametrize("net", [MLP(3, dtype=jnp.bfloat16), UNet.paper(2, second_head=2)])
def test_description_and_back(net):
    assert from_description(describe(net)) == net


def test_description_refusals():
    with pytest.raises(TypeError, match="class CircularConv"):
        describe(CircularConv(1, 1))
    with pytest.raises(ValueError, match="unknown network class 'Transformer'"):
        from_description({"class": "Transformer"})


@pytest.mark.slow
def test_attention():
    q, k, v = noise((3, 2, 5, 4))
    expected = jax.nn.dot_product_attention(*(x.swapaxes(0, 1)[None] for x in (q, k, v)))[0].swapaxes(0, 1)
    np.testing.assert_allclose(dot_product_attention(q, k, v), expected, atol=1e-5)
    large = dot_product_attention(100 * q, 100 * k, v)
    assert np.isfinite(np.asarray(large)).all()


@pytest.mark.slow
@pytest.mark.parametrize("places", [520, 521])  # 20 blocks of 26, and none, 521 being prime
def test_attention_over_many_places(places):
    q, k, v, weights = noise((4, 2, places, 3))

    def of(attention):
        def loss(q, k, v):
            return jnp.sum(attention(q, k, v) * weights)

        return attention(q, k, v), jax.grad(loss, (0, 1, 2))(q, k, v)

    def plain(q, k, v):
        return jax.nn.softmax(q @ k.swapaxes(-1, -2) / np.sqrt(3), axis=-1) @ v

    got, expected = jax.jit(lambda: (of(dot_product_attention), of(plain)))()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4), got, expected)
