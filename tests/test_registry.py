"""Registration, look-up, and the sentences that settings classes answer mistakes with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest

from adamas import registry
from adamas.attacks.pgd import PGD
from adamas.errors import AdamasError, nearest
from adamas.fit import Fit
from adamas.objectives import AdversarialTraining
from adamas.registry import KINDS, Count, Number, describe, find, label, parse, plain, readable, register, registered, settings
from adamas.threat import Linf


@settings
class Inner:
    """Nested."""

    rate: Number = 0.5


@settings
class Outer:
    """First sentence, over
    two lines.

    More.
    """

    count: Count
    mode: Literal["fast", "slow"] = "fast"
    inner: Inner = Inner()

    def __post_init__(self) -> None:
        if self.count == 13:
            raise ValueError("expected a lucky count")


@pytest.fixture
def scratch() -> Iterator[None]:
    """The registry as it was, after a test that adds to it."""
    before = {kind: dict(names) for kind, names in registry._registered.items()}
    yield
    for kind, names in before.items():
        registry._registered[kind].clear()
        registry._registered[kind].update(names)


def test_a_registered_class_is_found_by_name_and_carries_it(scratch):
    @register("attack", "zzz")
    class Nothing:
        """Does nothing."""

    assert find("attack", "zzz") is Nothing and (Nothing.kind, Nothing.name) == ("attack", "zzz")  # type: ignore[attr-defined]
    assert list(registered("attack")) == sorted(registered("attack")) and registered("attack")["pgd"] is PGD


def test_a_name_is_given_once(scratch):
    with pytest.raises(AdamasError, match=r"attack 'pgd' is registered twice: .*PGD.* and .*Other"):

        @register("attack", "pgd")
        class Other:
            """Another."""


def test_a_class_of_the_same_name_in_another_file_does_not_replace_one(scratch):
    with pytest.raises(AdamasError, match="attack 'pgd' is registered twice"):
        register("attack", "pgd")(type("PGD", (), {"__doc__": "Not ours.", "__module__": "elsewhere"}))


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_name_suggests_the_nearest(kind):
    name = next(iter(registered(kind)))
    with pytest.raises(AdamasError, match=f"unknown {kind} '{name}_'; did you mean '{name}\\w*'. Valid: .*{name}"):
        find(kind, f"{name}_")


def test_nearest_lists_what_there_is():
    assert nearest("pdg", ["pgd", "fgsm"]) == "; did you mean 'pgd'? Valid: fgsm, pgd"
    assert nearest("qqqq", ["pgd"]) == ". Valid: pgd"
    assert nearest("a", []) == ". Valid: none"


@pytest.mark.parametrize(
    ("raw", "sentences"),
    [
        ({}, ["count: 'count' is required and has no default"]),
        ({"count": 0}, ["count: input should be greater than or equal to 1, got 0"]),
        ({"count": 1.5}, ["count: input should be a valid integer, got a number with a fractional part, got 1.5"]),
        ({"count": 13}, ["expected a lucky count"]),
        ({"count": 1, "mode": "fas"}, ["mode: got 'fas'; did you mean 'fast'? Valid: fast, slow"]),
        ({"count": 1, "cuont": 2}, ["cuont: unknown key 'cuont'; did you mean 'count'? Valid: count, inner, mode"]),
        ({"count": 1, "inner": {"rate": "x"}}, ["inner.rate: input should be a valid number, unable to parse"]),
        ({"count": 1, "inner": {"rat": 1}}, ["inner.rat: unknown key 'rat'; did you mean 'rate'? Valid: rate"]),
        ({"count": -1, "mode": 3, "inner": {"rate": []}}, ["count: ", "mode: ", "inner.rate: "]),
    ],
)
def test_every_mistake_is_a_line_with_its_path(raw, sentences):
    with pytest.raises(AdamasError) as error:
        parse(Outer, raw)
    lines = str(error.value).splitlines()
    assert len(lines) == len(sentences)
    for line, sentence in zip(lines, sentences, strict=True):
        assert sentence in line


def test_in_python_the_class_is_named():
    with pytest.raises(AdamasError, match=r"^Outer\.count: input should be greater"):
        Outer(count=0)
    with pytest.raises(AdamasError, match=r"^PGD\.stesp: unknown key 'stesp'; did you mean 'steps'"):
        PGD(stesp=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ("pdg", "attack: unknown attack 'pdg'; did you mean 'pgd'"),
        ({"name": 3}, r"attack: expected the attack's 'name', got \{'name': 3\}"),
        ({"name": "pgd", "step": 3}, "attack.step: unknown key 'step'; did you mean 'steps'"),
        (3, r"attack: expected the attack's name or \{name: \.\.\.\}, got 3"),
        (Linf(), "attack: expected the attack's name or"),
    ],
)
def test_a_choice_says_what_it_expected(raw, sentence):
    with pytest.raises(AdamasError, match=sentence):
        parse(AdversarialTraining, {"attack": raw})


def test_a_choice_is_an_instance_a_name_or_a_mapping():
    expected = AdversarialTraining(attack=PGD())
    assert parse(AdversarialTraining, {"attack": "pgd"}) == parse(AdversarialTraining, {"attack": {"name": "pgd"}}) == expected
    assert parse(AdversarialTraining, {"attack": PGD()}) == expected


def test_keys_without_a_name_change_the_fields_default_method():
    assert parse(AdversarialTraining, {"attack": {"restarts": 3}}) == AdversarialTraining(attack=PGD(steps=10, restarts=3))
    with pytest.raises(AdamasError, match="select: expected the attack's 'name', got {'steps': 3}"):
        parse(Fit, {"select": {"steps": 3}})  # there is no default to change


def test_plain_writes_every_default_and_keeps_fractions_readable():
    assert plain(Linf()) == {"name": "linf", "eps": "8/255"}
    assert plain(Outer(count=2)) == {"count": 2, "mode": "fast", "inner": {"rate": 0.5}}
    written = plain(Fit(objective=AdversarialTraining(attack=PGD(step_size=2 / 255))))
    assert written["objective"]["attack"]["step_size"] == "2/255" and written["milestones"] == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(8 / 255, "8/255"), (0.05, 0.05), (1 / 3, "1/3"), (0.1 + 0.2, 0.1 + 0.2), (0.123456789, 0.123456789), (1e-5, 1e-5)],
)
def test_readable_is_exact(value, text):
    assert readable(value) == text


def test_labels_show_what_differs_from_the_defaults():
    assert label(PGD()) == "pgd" and label(PGD(steps=50, restarts=5)) == "pgd(steps=50, restarts=5)"
    assert label(Linf(eps=4 / 255)) == "linf(eps=4/255)"


def test_describe_joins_the_lines_of_the_first_paragraph():
    assert describe(Outer) == "First sentence, over two lines."


def test_nested_mapping_without_a_name_changes_the_default_method() -> None:
    from adamas.objectives import AdversarialTraining
    from adamas.registry import parse

    changed = parse(AdversarialTraining, {"attack": {"steps": 3}})
    assert (changed.attack.name, changed.attack.steps) == ("pgd", 3)
