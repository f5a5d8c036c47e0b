"""Documents by hand; what a whole recipe file makes of them is in test_recipe."""

import pytest

from adamas.documents import changed, combinations, merged, name_stages


@pytest.mark.parametrize(
    ("base", "change", "result"),
    [
        ({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 4}}, {"a": 1, "b": {"c": 4, "d": 3}}),
        ({"name": "pgd", "steps": 5}, {"steps": 7}, {"name": "pgd", "steps": 7}),
        ({"name": "pgd", "steps": 5}, {"name": "pgd", "restarts": 2}, {"name": "pgd", "steps": 5, "restarts": 2}),
        ({"name": "pgd", "steps": 5}, {"name": "fgsm"}, {"name": "fgsm"}),  # another method has other keys
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"b": 1}}, {"a": None}, {"a": None}),
        ({"a": None}, {"a": {"b": 1}}, {"a": {"b": 1}}),
    ],
)
def test_merging_by_hand(base, change, result):
    assert merged(base, change) == result


def test_a_setting_goes_where_its_path_says_and_leaves_the_document_as_it_was():
    document = {"attacks": ["pgd"], "evaluate": {"n": 5}}
    assert changed(document, ["attacks.0.steps=7", "evaluate.n=9", "new.key=[1]"]) == {
        "attacks": [{"name": "pgd", "steps": 7}],
        "evaluate": {"n": 9},
        "new": {"key": [1]},
    }
    assert document == {"attacks": ["pgd"], "evaluate": {"n": 5}}


def test_a_fixed_key_takes_away_its_sweep_and_those_below_it():
    sweep = {"seed": [0, 1], "model.width": {"thin": 8, "wide": 16}}
    assert [name for name, _ in combinations(sweep, ())] == ["seed=0 thin", "seed=0 wide", "seed=1 thin", "seed=1 wide"]
    assert list(combinations(sweep, ("model",))) == [("seed=0", [("seed", 0)]), ("seed=1", [("seed", 1)])]


def test_stages_by_name_are_copies_and_every_unknown_name_is_told():
    document = {"define": {"train": {"fit": {"epochs": 2}}}, "stages": ["train", "trian", "train", "tune"]}
    mistakes = name_stages(document)
    assert "define" not in document and document["stages"][0] == document["stages"][2] == {"fit": {"epochs": 2}}
    assert document["stages"][0] is not document["stages"][2]
    assert [mistake.split(":")[0] for mistake in mistakes] == ["stages.1", "stages.3"] and "'train'" in mistakes[0]
