"""The command line as a user meets it: real processes for what ends them, the app itself for the rest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ADAMAS = [sys.executable, "-c", "from adamas.cli import main; main()"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "160"}
QUICK = ["split.train=200", "split.test=30", "stages.0.fit.epochs=1", "deploy.batch_sizes=[1]", "evaluate.attacks=[fgsm]"]


def adamas(*arguments: str, cwd: Path, code: int = 0) -> str:
    """Run the command line and return what it printed."""
    done = subprocess.run([*ADAMAS, *arguments], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=200)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    printed = adamas("train", "--out", "runs/net", *QUICK, cwd=folder)
    assert "report.html" in printed
    return folder


def test_ls_lists_every_kind_with_a_sentence(tmp_path: Path) -> None:
    printed = adamas("ls", cwd=tmp_path)
    for name in ("cnn8", "resnet18", "pgd", "trades", "filters", "ptq", "fashion_mnist", "linf"):
        assert name in printed
    assert "pgd" in adamas("ls", "attacks", cwd=tmp_path)
    assert "did you mean 'attack'" in adamas("ls", "atack", cwd=tmp_path, code=1)


def test_schema_is_json(tmp_path: Path) -> None:
    assert "stages" in json.loads(adamas("schema", cwd=tmp_path))["properties"]


def test_single_steps_follow_one_another(trained: Path) -> None:
    adamas("compress", "runs/net", "filters", "keep=0.5", "--out", "runs/half", cwd=trained)
    adamas("finetune", "runs/half", "epochs=1", "objective.attack.steps=2", "--out", "runs/tuned", cwd=trained)
    adamas("compress", "runs/tuned", "ptq", "--out", "runs/int8", cwd=trained)
    assert "pgd(steps=3)" in adamas("attack", "runs/int8", "pgd", "steps=3", "--n", "20", cwd=trained)
    assert "model.int8.onnx" in adamas("export", "runs/int8", "--out", "exported", cwd=trained)
    assert (trained / "exported" / "model.int8.onnx").exists()
    assert "report: both.html" in adamas("report", "runs/net", "runs/int8", "--out", "both.html", cwd=trained)
    stages = json.loads((trained / "runs/int8/card.json").read_text())["stages"]
    assert [stage["stage"].split(",")[0] for stage in stages] == ["natural", "filters", "adversarial", "ptq"]


def test_evaluate_audit_and_curve_of_an_artifact_and_of_its_file(trained: Path) -> None:
    adamas("compress", "runs/net", "ptq", "--out", "runs/audited", cwd=trained)
    file = "runs/audited/model.int8.onnx"
    printed = adamas(
        "evaluate",
        "runs/audited",
        "-a",
        "fgsm",
        "-a",
        "{name: pgd, steps: 3}",
        "round=true",
        "-n",
        "20",
        "--out",
        "e.json",
        cwd=trained,
    )
    assert "model.int8.onnx: clean" in printed and "n = 20, seed 0" in printed
    figures = json.loads((trained / "e.json").read_text())
    assert figures["settings"]["round"] is True and [a["attack"] for a in figures["attacks"]] == ["fgsm", "pgd(steps=3)"]
    printed = adamas(
        "audit", file, "--data", "digits", "-a", "fgsm", "--queries", "5", "--from", "runs/net", "-n", "20", cwd=trained
    )
    for part in (
        "sha256",
        "on ONNX Runtime 1.",
        "pgd on runs/net",
        "square(queries=5) on model.int8.onnx",
        "differentiable twin",
    ):
        assert part in " ".join(printed.split()), part
    printed = adamas("audit", "runs/audited", "--queries", "5", "-n", "5", cwd=trained)
    assert all(part in printed for part in ("apgd_t", "pgd on the trained model", "square"))  # strong without being asked
    printed = adamas("curve", file, "steps=10", "--data", "digits", "-n", "20", "--at", "4/255", "--out", "c.svg", cwd=trained)
    assert "median distance" in printed and (trained / "c.svg").exists()


def test_records_for_the_pruning_benchmark(trained: Path) -> None:
    adamas("compress", "runs/net", "prune", "keep=0.2", "--out", "runs/pruned", cwd=trained)
    command = ["report", "runs/pruned", "runs/net", "--benchmark", "-n", "4", "--eps", "1"]  # all images fall at once
    printed = adamas(*command, "--fill", "key=Mine_Doe2026Small", cwd=trained)
    for part in ("Mine_Doe2026Small_cnn8_digits_US_80", "Mine_Doe2026Small_cnn8_digits_dense_0", "linf(eps=1.0)", "met"):
        assert part in printed, part
    record = json.loads((trained / "runs/pruned/benchmark.json").read_text())
    assert record["taxonomy"]["Pruning criterion"] == "Lowest Weight Magnitude (LWM)" and record["density"]["agree"] is True
    assert record["n"] == 4 and record["robust"][0]["autoattack"]["right"] == 0
    assert "sparsity 0" in " ".join(printed.split())
    sentence = "expected --benchmark with --fill, --eps, -n or --seed"
    assert sentence in " ".join(adamas("report", "runs/net", "-n", "4", cwd=trained, code=1).split())


def test_an_evaluation_is_split_and_merged(trained: Path) -> None:
    command = ["evaluate", "runs/net", "-a", "fgsm", "chunk=10", "--state", "state"]
    assert "n = 20" in adamas(*command, "--part", "2/2", cwd=trained)
    assert "n = 10" in adamas(*command, "--part", "1/2", cwd=trained)
    assert "n = 30" in adamas(*command, cwd=trained)
    assert (trained / "state/outcomes.json").exists()
    sentence = "expected the state of this evaluation, got another's"
    assert sentence in " ".join(adamas(*command, "--eps", "0.2", cwd=trained, code=1).split())


def test_show_and_run_a_recipe_with_overrides(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("data: digits\nmodel: cnn8\nstages: [{fit: {epochs: 1}}]\nsweep: {seed: [0, 1]}\n")
    shown = adamas("show", "mine.yaml", "model.width=8", cwd=tmp_path)
    assert "# seed=0" in shown
    assert "width: 8" in shown
    assert "mine.yaml: 2 rows, no mistakes" in adamas("check", "mine.yaml", cwd=tmp_path)
    printed = adamas("run", "mine.yaml", *QUICK, "--only", "seed=1", cwd=tmp_path)
    assert "runs/mine/report.html" in printed
    assert (tmp_path / "runs/mine/seed=1/evaluation.json").exists()
    assert "no row matches 'seed=7'" in adamas("run", "mine.yaml", "--only", "seed=7", cwd=tmp_path, code=1)


def test_claims_are_checked_on_what_was_measured(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(
        "data: digits\nsplit: {train: 60, test: 10}\nmodel: {name: cnn8, width: 4}\nstages: [{fit: {epochs: 1}}]\n"
        "evaluate: {attacks: [fgsm]}\nclaims: ['clean(\"tiny\") >= 0', 'params(\"tiny\") <= 9']\n"
    )
    printed = adamas("run", "tiny.yaml", cwd=tmp_path, code=1)
    assert 'expected the claim params("tiny") <= 9 to hold, it does not' in printed and ">= 0 to hold" not in printed
    assert "yes" in printed and (tmp_path / "runs/tiny/report.html").exists()
    (tmp_path / "other.yaml").write_text((tmp_path / "tiny.yaml").read_text())  # its only row is named after the file
    assert "there is no row 'tiny'. Valid: other" in adamas("check", "other.yaml", cwd=tmp_path, code=1)


def test_all_mistakes_of_a_recipe_at_once(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(
        "data: digit\nmodle: cnn8\nthreat: {name: linf, eps: x}\n"
        "stages:\n- compress: {name: filters, keep: 1.5}\n- compress: {name: ptq, weight_bits: 1}\n- {}\n"
    )
    printed = adamas("check", "bad.yaml", cwd=tmp_path, code=1)
    for part in (
        "unknown dataset 'digit'; did you mean 'digits'?",
        "unknown key 'modle'; did you mean 'model'?",
        "threat.eps: ",
        "stages.0.compress.keep: input should be less than or equal to 1, got 1.5",
        "stages.1.compress.weight_bits: expected 2 to 16 bits, got 1",
        "stages.2: expected a stage with 'compress', 'fit' or both, got neither",
    ):
        assert part in " ".join(printed.split()), part


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "nowhere.yaml"], "expected a recipe file, there is no nowhere.yaml"),
        (["evaluate", "nowhere"], "expected an artifact directory"),
        (["evaluate", "x.onnx"], "expected --data, the test images to attack the file on"),
        (["audit", "x.onnx", "--data", "digits"], "expected an ONNX file, there is none at x.onnx"),
        (["curve", "nowhere", "--eps", "8"], "expected an artifact directory"),
        (["report", "nowhere", "--benchmark"], "expected an artifact directory"),
        (["audit", "x.onnx", "--data", "digits", "--eps", "8"], "did you mean 8/255?"),
        (["train", "--data", "digit"], "did you mean 'digits'"),
        (["train", "--data", "mnist", "--data-dir", "."], "MNIST"),
        (["train", "stages.0.fit.epochs"], "expected an override like"),
        (["train", "stages.3.fit.epochs=1"], "stages.3: expected a number from 0 to 0, got '3'"),
        (["train", "--device", "tpu9"], "tpu9"),
    ],
)
def test_mistakes_end_in_a_sentence(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    assert sentence in " ".join(adamas(*arguments, cwd=tmp_path, code=1).split())


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, stop: signal.Signals, code: int) -> None:
    command = [
        "train",
        "--out",
        "runs/net",
        "split.train=1000",
        "split.test=30",
        "stages.0.fit.epochs=12",
        "evaluate.attacks=[fgsm]",
    ]
    process = subprocess.Popen(
        [*ADAMAS, *command], cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job would ignore it
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs/stages/*/checkpoint.pt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(stop)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == code, complaint
    assert "Traceback" not in complaint
    assert list(tmp_path.glob("runs/stages/*/checkpoint.pt"))
    adamas(*command, cwd=tmp_path)
    adamas(*command[:2], "again/net", *command[3:], cwd=tmp_path)
    resumed, straight = ((tmp_path / out / "net/weights.safetensors").read_bytes() for out in ("runs", "again"))
    assert resumed == straight


def test_a_full_disk_is_said_plainly(tmp_path: Path) -> None:
    full = [sys.executable, "-c", (
        "import errno, os, adamas.files as files\n"
        "def fail(*a): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'weights')\n"
        "files.os.replace = fail\n"
        "from adamas.cli import main; main()"
    )]  # fmt: skip
    done = subprocess.run(
        [*full, "train", "--out", "runs/net", *QUICK],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "the disk is full (weights); finished epochs and stages are kept" in done.stderr
    assert "Traceback" not in done.stderr
