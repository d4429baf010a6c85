"""Keys come from constructors: both ways of building agree, and extensions take the edits that docs say."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from jaxtyping import Array, Float
from numpy.typing import ArrayLike
from typing_extensions import TypeAliasType

from masf_jax.cli.config.builders.dynamics import DYNAMICS
from masf_jax.cli.config.builders.filters import FILTERS
from masf_jax.cli.config.builders.measurement import MEASUREMENTS
from masf_jax.cli.config.builders.registry import Entry, Group
from masf_jax.cli.config.schema import Role, load, read
from masf_jax.cli.config.settings import flat, section
from masf_jax.cli.config.values import MISSING, checked, words
from masf_jax.cli.errors import InputError
from masf_jax.cli.main import main
from masf_jax.dynamics import Dynamics
from masf_jax.ensemble.inflation import Inflation
from masf_jax.filters import EnsembleFilter

REQUIRED = {
    "letkf": {"radius": 7.0},
    "blur": {"width": 2.0},
    "low_pass": {"cutoff": 3.0},
    "coarsen": {"factor": 2},
    "quantised": {"step": 0.5},
    "censored": {"upper": 3.0},
}
Number = TypeAliasType("Number", float | None)
Alike = TypeAliasType("Alike", ArrayLike)
GROUPS = {"dynamics": DYNAMICS, "measurement": MEASUREMENTS, "filter": FILTERS}
CONSTRUCTORS = [
    (group, name)
    for group, each in GROUPS.items()
    for name, entry in each.entries.items()
    if isinstance(entry.make, str) and ".builders." not in entry.make
]


def same(a, b):
    """Equal in structure and in every number."""
    leaves_a, leaves_b = jax.tree.leaves(a), jax.tree.leaves(b)
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for one, other in zip(leaves_a, leaves_b, strict=True):
        assert jnp.array_equal(jnp.asarray(one), jnp.asarray(other), equal_nan=False)


@pytest.mark.parametrize(("group", "name"), CONSTRUCTORS)
def test_library_and_command_line_build_the_same(group, name):
    given = REQUIRED.get(name, {})
    checked = GROUPS[group].check({"name": name, **given})
    entry = GROUPS[group].entries[name]
    make = load(entry.make)
    if group == "measurement":
        shape = (2, 8, 8) if name in ("speed", "vorticity") else (8,)
        built = GROUPS[group].build(checked, shape, None).measurement.operator
        context = {"shape": shape} if name in ("blur", "low_pass", "coarsen") else {}
        same(built, make(**given, **context))
    elif name != "masf_kernel":
        same(GROUPS[group].build(checked), make(**given))
    else:  # MASF with another prior
        from masf_jax.masf import MASF, KernelPrior

        same(GROUPS[group].build(checked), MASF(KernelPrior()))


def test_every_key_is_listed_with_its_value_type_and_line(capsys):
    assert main(["list", "filter", "letkf"]) == 0
    text = capsys.readouterr().out
    assert "filter.radius=7.28  (a number or null)" in text
    assert "filter.solver=cg  (cg or eigh)" in text
    assert "support 2·radius" in text
    assert main(["list", "filter", "letfk"]) == 2
    assert "'letkf'" in capsys.readouterr().err


@pytest.mark.parametrize("group", GROUPS)
def test_every_key_of_every_choice_can_be_said_in_words(group):
    from masf_jax.cli.config.compose import choices, key_rows

    for choice in choices(group):
        if "${" in choice:
            continue
        for path, value, kind, _ in key_rows(group, choice):
            assert path
            assert value
            assert not kind.startswith("<"), (choice, path, kind)


def test_a_named_type_is_what_it_names():
    """As NumPy's ArrayLike is from Python 3.12 on."""

    class Made(eqx.Module):
        one: Any
        other: Any

        def __init__(self, one: Number | str = None, other: Alike | None = None):
            self.one, self.other = one, other

    kinds = {name: words(key.kind) for name, key in read(Made, {}, section="").parameters.items()}
    assert kinds == {
        "one": "a number or text or null",
        "other": "a number or a list, each item a number, e.g. [0.1,0.2] or null",
    }


def test_values():
    assert checked("k", 1e3, int) == 1000
    assert isinstance(checked("k", 3, float), float)
    assert checked("k", [1, 2.5], tuple[float, ...]) == (1.0, 2.5)
    assert checked("k", [[1], [2, 3]], tuple[tuple[float, ...], ...]) == ((1.0,), (2.0, 3.0))
    assert checked("k", float("inf"), float) == float("inf")
    assert checked("k", {"std": 1.0}, dict) == {"std": 1.0}
    assert checked("k", None, int | None) is None
    for value, kind in (
        (True, int),
        (1, bool),
        ("1", int),
        (1.5, int),
        (1, str),
        ("b", Literal["a"]),
        (2, dict),
    ):
        with pytest.raises(InputError, match=r"^k must be .*; got "):
            checked("k", value, kind)
    assert words(float | None) == "a number or null"


# What an extension takes ------------------------------------------------------------------------------------


class Nudging(EnsembleFilter):
    """x ← x + gain (z - H x) where H picks components. A new filter: this class, and one line in FILTERS.

    Args:
        gain: share of the innovation that is added.
        inflation: see `Inflation`.
    """

    gain: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=0.5)
    inflation: Inflation = eqx.field(default_factory=Inflation)

    def transform(self, key, x, innovations, mask):
        return x + self.gain * innovations, {}


def test_a_new_filter_is_its_class_and_a_line():
    filters = Group("filter", {"nudging": Nudging})
    assert filters.keys("nudging")["gain"].doc == "share of the innovation that is added."
    checked = filters.check({"name": "nudging", "rtps": 0.3})
    assert (checked["gain"], checked["rtps"], checked["inflation"]) == (0.5, 0.3, None)
    same(filters.build(checked), Nudging(inflation=Inflation(rtps=0.3)))


def test_a_new_hyperparameter_is_an_edit_of_the_constructor():
    @dataclasses.dataclass(frozen=True)
    class Before:
        """A thing.

        Args:
            a: one.
        """

        a: float = 1.0

    @dataclasses.dataclass(frozen=True)
    class After(Before):
        """A thing.

        Args:
            a: one.
            b: the new one.
        """

        b: int = 2

    keys = {key.path: (key.default, key.doc) for key in read(After, {}).keys({})}
    assert keys == {"a": (1.0, "one."), "b": (2, "the new one.")}
    assert section(After, "thing", {"b": 3}) == After(1.0, 3)
    with pytest.raises(InputError, match=r"unknown key 'thing.b'"):
        section(Before, "thing", {"b": 3})


class Decay(Dynamics):
    """x ← rate · x. A new model: this class, and one line in DYNAMICS.

    Args:
        rate: what is left after a step.
    """

    rate: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=0.9)
    dt: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=1.0)
    state_shape: tuple[int, ...] = eqx.field(static=True, default=(3,))

    def __call__(self, x, time, key):
        return self.rate * x

    def initial_state(self, key):
        return jax.random.normal(key, self.state_shape)


def test_a_new_model_is_its_class_and_a_line():
    models = Group("dynamics", {"decay": Decay}, finish=DYNAMICS.finish)
    model = models.build(models.check({"name": "decay", "state_shape": [4], "model_error": 0.1}))
    assert model.state_shape == (4,)
    assert float(model.std) == pytest.approx(0.1)


def test_a_new_operator_is_its_class_and_a_line():
    from masf_jax.measurements.base import Elementwise

    class Cubed(Elementwise):
        """x³.

        Args:
            factor: in front.
        """

        factor: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=1.0)

        def __call__(self, x):
            return self.factor * x**3

    finish = MEASUREMENTS.entries["arctan"].finish
    group = Group("measurement", {"cubed": Entry(Cubed, finish=finish)}, ("shape",), MEASUREMENTS.finish)
    network = group.build(group.check({"name": "cubed", "stride": 2, "noise": {"std": 0.2}}), (6,))
    assert network.measurement.operator(jnp.arange(6.0)).tolist() == [0.0, 8.0, 64.0]


def test_a_choice_of_classes_has_the_keys_of_the_chosen_one():
    masf = FILTERS.check({"name": "masf", "sampler": "guided"})
    assert {"first", "paper_scales"} <= set(masf)
    assert not {"centred", "corrected"} & set(masf)
    assert FILTERS.check({"name": "masf", "prior": "kernel", "radius": 3.0})["bandwidth"] is None
    assert "radius" not in FILTERS.check({"name": "masf", "prior": "kernel", "radius": 3.0})
    assert FILTERS.check({"name": "masf", "denoiser": "kernel"})["prior"] == "kernel", "its key of earlier"
    conditional = FILTERS.check({"name": "masf", "denoiser": "network", "route": "conditional"})
    assert (conditional["route"], conditional["prior"], conditional["n_steps"]) == (
        "conditional_network",
        None,
        40,
    )
    again = FILTERS.check(conditional)
    assert again == conditional, "a complete section reads back the same"


def test_a_role_of_ones_own():
    class Inner(eqx.Module):
        kind: Literal["a", "b"] = eqx.field(static=True, default="a")
        size: int = eqx.field(static=True, default=3)

    @dataclasses.dataclass(frozen=True)
    class Outer:
        inner: Inner | None = None

    roles = {"Inner": Role({"kind": "inner"}, null="kind")}
    Outer.__init__.__annotations__["inner"] = Inner | None
    part = read(Outer, roles)
    assert {key.path: key.default for key in part.keys({})} == {"inner": None, "size": 3}
    assert part.build({"inner": None, "size": 3}, {}).inner is None
    assert part.build({"inner": "b", "size": 4}, {}).inner == Inner("b", 4)


def test_arrays_and_what_prepare_fills_in_are_no_keys():
    assert "taper" not in flat(FILTERS.check({"name": "letkf", "radius": 3.0}))
    assert FILTERS.keys("letkf", {})["radius"].default is MISSING
