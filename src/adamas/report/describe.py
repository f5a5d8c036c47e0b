"""What a run's card says of its threat, its recipe and where its figures come from."""

from __future__ import annotations

import yaml

from adamas.registry import describe, readable, registered
from adamas.report.rows import Run


def threat_sentence(run: Run) -> str:
    """`linf(eps=8/255): every pixel value may change by at most 8/255 of the pixel range.`"""
    threat = run.card["recipe"]["threat"]
    eps = readable(threat["eps"]) if isinstance(threat["eps"], float) else threat["eps"]
    known = registered("threat").get(threat["name"])
    sentence = describe(known).replace("`eps`", str(eps)) if known else ""
    return f"{run.evaluation['threat']}: {sentence[:1].lower()}{sentence[1:]} Pixels run from 0 to 1."


def recipe_yaml(run: Run) -> str:
    """The whole recipe, every default written out."""
    return yaml.safe_dump(run.card["recipe"], sort_keys=False, allow_unicode=True)


def origin(run: Run) -> dict[str, str]:
    """Where the figures come from, by name."""
    card = run.card
    return {
        "processor": f"{card['processor']}, cores: {card['cores']}, threads: {card['threads']}",
        "accelerator": card["accelerator"] or "none",
        "versions": ", ".join(f"{name} {version}" for name, version in {"python": card["python"], **card["versions"]}.items()),
        "commit": card["commit"] or "not recorded",
        "data": f"{card['data']['name']}, {card['data']['train']:,} training and {card['data']['validation']:,} validation "
        f"images, fingerprint {card['data']['fingerprint']}",
        "weights": card["weights"],
    }
