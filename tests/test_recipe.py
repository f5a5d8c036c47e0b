"""Recipe files: what they expand to, by hand, and every sentence that a mistake is answered with."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import yaml

from adamas.attacks.pgd import PGD
from adamas.data.digits import Digits
from adamas.errors import AdamasError
from adamas.evaluate import Evaluate
from adamas.fit import Fit
from adamas.models.cnn8 import CNN8
from adamas.objectives import AdversarialTraining, Natural
from adamas.recipe import Recipe, Stage, dump, read
from adamas.threat import L2, Linf

BASE = """
    title: base
    data: digits
    model: {name: cnn8, width: 4}
    threat: {name: linf, eps: 8/255}
    define:
      natural: {fit: {epochs: 2}}
      robust: {fit: {epochs: 3, objective: {name: adversarial, attack: {name: pgd, steps: 5}}}}
    stages: [natural, robust]
    """


@pytest.fixture
def recipe(tmp_path):
    """Write a recipe file and return its path."""

    def save(text: str, name: str = "base.yaml") -> Path:
        path = tmp_path / name
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return save


def mistakes(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(AdamasError) as error:
        read(path, overrides)
    return str(error.value).splitlines()


# ---------------------------------------------------------------------------------------------------------- expansion


def test_a_file_becomes_one_row_of_typed_values(recipe):
    rows = read(recipe(BASE))
    assert list(rows) == ["base"]
    assert rows["base"] == Recipe(
        title="base",
        data=Digits(),
        model=CNN8(width=4),
        threat=Linf(eps=8 / 255),
        stages=(
            Stage(fit=Fit(epochs=2, objective=Natural())),
            Stage(fit=Fit(epochs=3, objective=AdversarialTraining(attack=PGD(steps=5)))),
        ),
        evaluate=Evaluate(attacks=(PGD(),)),
    )


def test_written_out_a_recipe_reads_back_equal(recipe, tmp_path):
    (row,) = read(recipe(BASE), ["normalise.mean=[1/3]", "normalise.std=[0.5]", "split.validation=0.2"]).values()
    assert read(recipe(dump(row), "again.yaml"))["again"] == row
    assert "eps: 8/255" in dump(row) and "patience: null" in dump(row)


def test_extends_changes_key_by_key(recipe):
    recipe(BASE)
    recipe("extends: base.yaml\nthreat: {eps: 0.1}\ndefine: {natural: {fit: {lr: 0.5}}}", "middle.yaml")
    path = recipe("extends: middle.yaml\nmodel: {width: 8}\nstages: [natural]\nseed: 4", "top.yaml")
    row = read(path)["top"]
    assert row.model == CNN8(width=8) and row.threat == Linf(eps=0.1) and row.title == "base" and row.seed == 4
    assert row.stages == (Stage(fit=Fit(epochs=2, lr=0.5)),)


def test_of_several_parents_the_later_wins(recipe):
    recipe("title: one\nseed: 1\nthreat: {name: linf, eps: 0.1}", "one.yaml")
    recipe("seed: 2\nthreat: {eps: 0.2}", "two.yaml")
    row = read(recipe("extends: [one.yaml, two.yaml]\ndata: digits", "top.yaml"))["top"]
    assert (row.title, row.seed, row.threat, row.data) == ("one", 2, Linf(eps=0.2), Digits())


def test_a_sweep_is_every_combination_in_order(recipe):
    sweep = """
    sweep:
      threat.eps: [2/255, 8/255]
      stages:
        clean: [natural]
        both: [natural, robust]
      stages.0.fit.epochs: [1]
    """
    rows = read(recipe(BASE + sweep))
    assert list(rows) == [
        "eps=2/255 clean epochs=1",
        "eps=2/255 both epochs=1",
        "eps=8/255 clean epochs=1",
        "eps=8/255 both epochs=1",
    ]
    clean, both = rows["eps=2/255 clean epochs=1"], rows["eps=8/255 both epochs=1"]
    assert clean.threat == Linf(eps=2 / 255) and [stage.fit.epochs for stage in clean.stages] == [1]
    assert both.threat == Linf(eps=8 / 255) and [stage.fit.epochs for stage in both.stages] == [1, 3]


def test_a_swept_definition_changes_every_stage_that_names_it(recipe):
    rows = read(recipe(BASE + "\n    sweep: {define.natural.fit.lr: [0.1, 0.2]}"), ["stages=[natural, natural]"])
    assert [[stage.fit.lr for stage in row.stages] for row in rows.values()] == [[0.1, 0.1], [0.2, 0.2]]


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("seed=7", lambda row: row.seed == 7),
        ("threat.eps=4/255", lambda row: row.threat == Linf(eps=4 / 255)),
        ("threat=l2", lambda row: row.threat == L2()),
        ("data.name=digits", lambda row: row.data == Digits()),  # a name becomes {name: ...}
        ("model={name: cnn8, width: 2}", lambda row: row.model == CNN8(width=2)),
        ("split.train=100", lambda row: row.split.train == 100),  # a key that the file does not have
        ("stages.1.fit.epochs=9", lambda row: [stage.fit.epochs for stage in row.stages] == [2, 9]),
        ("stages.1.fit.objective.attack.steps=9", lambda row: row.stages[1].fit.objective.attack == PGD(steps=9)),
        ("stages.0=robust", lambda row: row.stages[0] == row.stages[1]),
        ("define.natural.fit.lr=0.5", lambda row: row.stages[0].fit.lr == 0.5),
        ("title=a=b", lambda row: row.title == "a=b"),
    ],
)
def test_an_override_sets_one_place(recipe, override, found):
    row = read(recipe(BASE), [override])["base"]
    assert found(row)
    assert sum(found(row) for row in read(recipe(BASE)).values()) == (override == "data.name=digits")


def test_an_override_into_a_named_stage_changes_that_stage_alone(recipe):
    row = read(recipe(BASE), ["stages=[natural, natural]", "stages.0.fit.epochs=5"])["base"]
    assert [stage.fit.epochs for stage in row.stages] == [5, 2]


def test_an_override_of_a_swept_key_or_above_it_replaces_the_sweep(recipe):
    path = recipe(BASE + "\n    sweep: {threat.eps: [0.1, 0.2], threat.name: [linf, l2], seed: [1, 2]}")
    assert len(read(path)) == 8
    assert list(read(path, ["threat.eps=0.3"])) == ["name=linf seed=1", "name=linf seed=2", "name=l2 seed=1", "name=l2 seed=2"]
    assert {row.threat for row in read(path, ["threat=l2"]).values()} == {L2()} and len(read(path, ["threat=l2"])) == 2
    assert list(read(path, ["threat=linf", "seed=3"])) == ["base"]


# ----------------------------------------------------------------------------------------------------------- mistakes


def test_only_the_rows_that_are_asked_for_meet_the_changes(recipe):
    path = recipe(BASE + "\n    sweep: {stages: {short: [natural], long: [natural, robust]}, seed: [0, 1]}")
    rows = read(path, ["stages.1.fit.epochs=9"], "long*")
    assert {name: [stage.fit.epochs for stage in row.stages] for name, row in rows.items()} == {
        "long seed=0": [2, 9],
        "long seed=1": [2, 9],
    }
    assert mistakes(path, "stages.1.fit.epochs=9") == ["base.yaml: stages.1: expected a number from 0 to 0, got '1'"]
    with pytest.raises(AdamasError, match="^no row matches 'lang seed=1'; did you mean 'long seed=1'"):
        read(path, [], "lang seed=1")


def test_every_mistake_of_every_row_is_told_once_and_with_its_path(recipe):
    path = recipe("""
    datta: digits
    model: {name: cnn9}
    threat: {name: linf, epz: 1}
    define: {natural: {fit: {}}}
    stages: [natral, {fit: {epochs: 0, objective: {name: adversarial, attack: pdg}}}, {}]
    sweep: {seed: [1, 2, -3]}
    """)
    found = mistakes(path, "evaluate.batch_size=none", "stages.7.fit.epochs=1")
    expected = [
        "base.yaml: stages.7: expected a number from 0 to 2, got '7'",
        "base.yaml: stages.0: no stage is defined as 'natral'; did you mean 'natural'? Valid: natural",
        "base.yaml: datta: unknown key 'datta'; did you mean 'data'? Valid: data, deploy, ",
        "base.yaml: model: unknown model 'cnn9'; did you mean 'cnn8'? Valid: cnn4, cnn8, ",
        "base.yaml: threat.epz: unknown key 'epz'; did you mean 'eps'? Valid: eps",
        "base.yaml: stages.1.fit.objective.attack: unknown attack 'pdg'; did you mean 'pgd'? Valid: ",
        "base.yaml: stages.1.fit.epochs: input should be greater than or equal to 1, got 0",
        "base.yaml: stages.2: expected a stage with 'compress', 'fit' or both, got neither",
        "base.yaml: evaluate.batch_size: input should be a valid integer, unable to parse string as an integer, got 'none'",
        "base.yaml: seed: input should be greater than or equal to 0, got -3",
    ]
    assert len(found) == len(expected)
    for line in expected:
        assert any(got.startswith(line) for got in found), line


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"base\.yaml: expected keys and values, got NoneType"),
        ("- data", r"base\.yaml: expected keys and values, got list"),
        ("digits", r"base\.yaml: expected keys and values, got str"),
        ("a: [1", r"base\.yaml: expected YAML, got while parsing a flow sequence"),
        ("title: 2024-99-99", r"base\.yaml: expected YAML, got month must be in 1\.\.12"),
        ("[" * 700, r"base\.yaml: expected YAML, got maximum recursion depth"),
        ("extends: 3", r"base\.yaml: extends: expected the name of a recipe file or a list of names, got 3"),
        ("extends: [1]", r"base\.yaml: extends: expected the name of a recipe file or a list of names, got \[1\]"),
        ("extends: bas.yaml", r"expected a recipe file, there is no .*bas\.yaml; did you mean 'base\.yaml'\?"),
        ("sweep: [1]", r"sweep: expected keys with lists or named values, got \[1\]"),
        ("sweep: {seed: 1}", "sweep: expected keys with lists or named values, got {'seed': 1}"),
        ("sweep: {seed: []}", "sweep: expected keys with lists or named values, got {'seed': \\[\\]}"),
        ("sweep: {3: [1]}", "base.yaml: 3: unknown key '3'"),
        ("3: 4", "base.yaml: 3: .*"),
        ("define: 3\nstages: [a]", "base.yaml: define: expected stages by name, got 3"),
        ("stages: [a]", r"base.yaml: stages\.0: no stage is defined as 'a'\. Valid: none"),
        ("define: {1: {fit: {}}}\nstages: [a]", r"base.yaml: stages\.0: no stage is defined as 'a'\. Valid: 1"),
        ("stages: natural", "base.yaml: stages: input should be a valid tuple, got 'natural'"),
        ("stages: [null]", r"base.yaml: stages\.0: input should be a dictionary or an instance of Stage, got None"),
        ("threat: &t {name: linf, eps: *t}", "base.yaml: threat.eps: input should be a valid number"),
        ("normalise: {std: [0]}", r"base.yaml: normalise\.std\.0: input should be greater than 0, got 0"),
        ("deploy: {threads: 0, batch_sizes: [0]}", "base.yaml: deploy.threads: input should be greater than or equal to 1"),
        ("seed: 99999999999", "base.yaml: seed: input should be less than 4294967296, got 99999999999"),
        ("threat: {name: linf, eps: .inf}", r"base.yaml: threat\.eps: input should be a finite number, got inf"),
    ],
)
def test_a_file_that_is_no_recipe_is_told_why(recipe, text, sentence):
    with pytest.raises(AdamasError, match=sentence):
        read(recipe(text))


def test_a_file_that_cannot_be_read_is_told_why(recipe, tmp_path):
    path = recipe("")
    path.write_bytes(b"title: \xff\xfe")
    with pytest.raises(AdamasError, match=r"base\.yaml: expected YAML, got .*can't decode"):
        read(path)
    with pytest.raises(AdamasError, match="expected YAML, got .*directory"):
        read(tmp_path)
    with pytest.raises(AdamasError, match=r"there is no .*nowhere/x\.yaml\. Valid: none"):
        read(tmp_path / "nowhere" / "x.yaml")


def test_files_that_extend_each_other_are_refused(recipe):
    recipe("extends: b.yaml", "a.yaml")
    with pytest.raises(AdamasError, match=r"a\.yaml: extends itself through a\.yaml -> b\.yaml"):
        read(recipe("extends: a.yaml", "b.yaml").with_name("a.yaml"))


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir", "!!python/name:os.mkdir"])
def test_yaml_runs_no_code(recipe, tmp_path, tag):
    for text in (f"title: {tag} [{tmp_path}/loot]", f"{tag} [{tmp_path}/loot]: 1"):
        with pytest.raises(AdamasError, match="expected YAML, got could not determine a constructor"):
            read(recipe(text))
        with pytest.raises(AdamasError, match="title: expected a YAML value, got"):
            read(recipe(BASE), [f"title={tag} [{tmp_path}/loot]"])
    assert not (tmp_path / "loot").exists()


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("seed", "expected an override like stages.1.compress.keep=0.2, got 'seed'"),
        ("=3", "expected an override like stages.1.compress.keep=0.2, got '=3'"),
        ("seed=[", r"seed: expected a YAML value, got '\['"),
        ("sede=3", "sede: unknown key 'sede'; did you mean 'seed'"),
        ("stages.2.fit.epochs=3", "stages.2: expected a number from 0 to 1, got '2'"),
        ("stages.x.fit.epochs=3", "stages.x: expected a number from 0 to 1, got 'x'"),
        ("stages.-1=robust", "stages.-1: expected a number from 0 to 1, got '-1'"),
        ("stages.0.fit.epochs.x=3", "stages.0.fit.epochs: expected keys below it to set 'stages.0.fit.epochs.x', got 2"),
        ("threat.eps=8/0", "threat.eps: input should be a valid number"),
        ("threat.eps=", "threat.eps: input should be a valid number, got None"),
    ],
)
def test_a_wrong_override_is_told_why(recipe, override, sentence):
    with pytest.raises(AdamasError, match=sentence):
        read(recipe(BASE), [override])


def test_reading_leaves_no_trace_in_the_next_reading(recipe):
    path = recipe(BASE + "\n    sweep: {stages.0.fit.epochs: [4, 5]}")
    first = read(path)
    assert read(path, ["stages.0.fit.lr=0.7"]) != first and read(path) == first
    assert yaml.safe_load(path.read_text())["stages"] == ["natural", "robust"]
