"""The README's commands and Python run as they are printed, and so does the page on adding a method."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MY_PROJECT = """
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset
torch.manual_seed(0)
digits = load_digits()
x, y = torch.tensor(digits.images / 16).float()[:400, None], torch.tensor(digits.target)[:400].long()
train_loader = DataLoader(TensorDataset(x[:350], y[:350]), batch_size=64)
test_loader = DataLoader(TensorDataset(x[350:], y[350:]), batch_size=64)
net = torch.nn.Sequential(
    torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(1024, 10)
)
"""


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.S)


def run(command: list[str], cwd: Path) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(cwd)},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.timeout(900)  # a dozen commands, each a process that loads torch
def test_readme_commands_run_in_order(tmp_path: Path) -> None:
    (recipe,) = blocks("README.md", "yaml")
    (tmp_path / "tiny.yaml").write_text(recipe)
    for block in blocks("README.md", "sh"):
        for line in block.strip().splitlines():
            verb, *arguments = shlex.split(line)
            assert verb == "adamas"
            run([sys.executable, "-c", "from adamas.cli import main; main()", *arguments], tmp_path)
    assert (tmp_path / "report.html").exists()
    assert (tmp_path / "runs/tiny/report.html").exists()


def test_readme_python_runs_in_ten_lines(tmp_path: Path) -> None:
    (snippet,) = blocks("README.md", "python")
    (tmp_path / "my_project.py").write_text(MY_PROJECT)
    assert len([line for line in snippet.splitlines() if line.strip()]) <= 11
    assert "runs/hardened: clean" in run([sys.executable, "-c", snippet], tmp_path)


@pytest.mark.parametrize("page", ["docs/add-a-method.md"])
def test_a_method_written_by_the_page_works_and_passes_the_contract(page: str, tmp_path: Path) -> None:
    (method,) = blocks(page, "python")
    (tmp_path / "random_sign.py").write_text(method)
    (tmp_path / "use.py").write_text(
        "import torch, random_sign, adamas\n"
        "from adamas.panel import check_inside\n"
        "from adamas.registry import parse, registered\n"
        "assert 'random_sign' in registered('attack')\n"
        "attack = parse(adamas.Evaluate, {'attacks': [{'name': 'random_sign', 'tries': 50}]}).attacks[0]\n"
        "torch.manual_seed(0)\n"
        "net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))\n"
        "x = torch.rand(50, 1, 8, 8); y = net(x).argmax(1)\n"
        "for threat in (adamas.Linf(eps=.2), adamas.L2(eps=1.)):\n"
        "    x_adv = attack(net, x, y, threat)\n"
        "    check_inside(attack, x_adv, x, threat)\n"
        "    assert (net(x_adv).argmax(1) != y).any()\n"
    )
    run([sys.executable, "use.py"], tmp_path)
