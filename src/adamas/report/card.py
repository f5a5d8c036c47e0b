"""The model card: what a model is, what was measured on it, and what that does not tell, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from adamas.artifact import Artifact
from adamas.report.describe import origin, recipe_yaml, threat_sentence
from adamas.report.remarks import remarks
from adamas.report.rows import Row, Run, rows
from adamas.report.table import noise
from adamas.report.text import escaped, fenced, ms, percent, short, size

USE = """\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
images = np.zeros((1, {shape}), dtype=np.float32)  # your images: float32 in [0, 1], NCHW, not normalised
(logits,) = session.run(["logits"], {{"image": images}})
classes = logits.argmax(1)"""


def model_card(artifact: Artifact) -> str:
    """The card of one artifact as Markdown; foreign names in it are inert text."""
    [row] = rows([artifact])
    [run] = row.runs
    sections = {
        "": _what(row, run),
        "Results": _results(row, run),
        "Threat model": escaped(threat_sentence(run)),
        "Data": _data(run),
        "How it was made": _making(run),
        "Size and speed": _costs(row, run),
        "Limitations": _limitations(row),
        "Use": _use(row, run),
        "Provenance": "\n".join(f"* {name}: {escaped(value)}" for name, value in origin(run).items()),
        "Recipe": fenced(recipe_yaml(run), "yaml"),
    }
    head = f"# {escaped(run.card['name'])}"
    return "\n\n".join([head, *(f"## {title}\n\n{text}" if title else text for title, text in sections.items())]) + "\n"


def _what(row: Row, run: Run) -> str:
    channels, height, width = run.card["image_shape"]
    title = f"{escaped(run.card['title'])}. " if run.card["title"] else ""
    return (
        f"{title}A {escaped(run.card['network'])} network that sorts {height}x{width} images of {channels} "
        f"channel{'s' if channels > 1 else ''} into {len(run.card['classes'])} classes. It ships as `{row.shipped}` "
        f"({size(row.size)}) and keeps **{percent(row.shipped_worst_case.value)} %** of {row.test:,} test images in the worst "
        f"case under {escaped(row.threat)}, and {percent(row.shipped_clean.value)} % without an attack."
        f"{_noise(row)}"
    )


def _noise(row: Row) -> str:
    return f" The trained network keeps {percent(row.worst_case.value)} %: it {noise(row)}" if row.noise_off else ""


def _results(row: Row, run: Run) -> str:
    e = run.evaluation
    judged = e["judged"][row.shipped]
    rates = [("clean", e["clean"])] + [(f"after {escaped(attack['attack'])}", attack["accuracy"]) for attack in e["attacks"]]
    rates += [("**worst case**", e["worst_case"])]
    if row.noise_off:
        rates += [("noise off, clean", e["noise_off"]["clean"]), ("**noise off, worst case**", e["noise_off"]["worst_case"])]
    rates += [("shipped file, clean", judged["clean"])]
    rates += [("**shipped file, worst case**", judged["worst_case"])]
    lines = [
        [
            name,
            f"{rate['right']:,} of {rate['n']:,}",
            percent(rate["value"]),
            f"{percent(rate['low'])} to {percent(rate['high'])}",
        ]
        for name, rate in rates
    ]
    how = "each attack ran on every image" if row.exhaustive else "attacks ran in this order on the images still standing"
    parts = [_table(["accuracy", "right", "%", "95 % interval"], lines), f"One seed ({run.seed}); {how}."]
    return "\n\n".join(parts + [f"> **Unsound?** {escaped(flag)}" for flag in row.flags])


def _data(run: Run) -> str:
    data = run.card["data"]
    return (
        f"{escaped(data['name'])}: {data['train']:,} images for training, {data['validation']:,} for validation, "
        f"{run.evaluation['test']:,} for testing. Classes, in the order of the logits: "
        f"{', '.join(escaped(name) for name in run.card['classes'])}."
    )


def _making(run: Run) -> str:
    stages = run.card["stages"]
    if not stages:
        return "No stage was run: the weights are as they were given."
    lines = [
        [
            escaped(s["stage"]),
            str(len(s["epochs"])),
            f"{s['seconds']:.1f}",
            f"{s['epochs'][-1]['loss']:.3f}" if s["epochs"] else "",
        ]
        for s in stages
    ]
    notes = [f"\n```\n{note.replace('```', '')}\n```" for s in stages for note in s["notes"]]
    return _table(["stage", "epochs", "seconds", "final loss"], lines) + "".join(notes)


def _costs(row: Row, run: Run) -> str:
    lines = [[f"`{name}`", size(count)] for name, count in row.bytes_on_disk.items()]
    cost = run.evaluation["cost"]
    lines += [["bit-packed weights", size(row.packed_bytes)], ["non-zeros times their bits", size(row.paper_bits / 8)]]
    if "codebook_bits" in cost:
        lines += [["weights as codes, with codebooks and without positions", size(cost["codebook_bits"] / 8)]]
    counts = f"{row.params:,} parameters, {percent(row.filled)} % not zero; {short(row.macs)} multiply-accumulates per image."
    if cost.get("unread_channels"):
        counts += f" {cost['unread_channels']:,} of {cost['input_channels']:,} channels that convolutions read have no weights."
    return "\n\n".join([counts, _table(["counted as", "size"], lines), *_latency(run)])


def _latency(run: Run) -> list[str]:
    lines = [
        [f"`{name}`", batch, ms(time["p50"]), ms(time["p95"])]
        for name, batches in run.evaluation.get("latency", {}).items()
        for batch, time in batches.items()
    ]
    return [_table(["latency, ms", "batch", "p50", "p95"], lines)] if lines else []


def _limitations(row: Row) -> str:
    told = [escaped(remark) for remark in remarks([row])]
    told += [
        "Robustness was measured, not proven: a stronger attack can lower it. It is robustness to this threat alone, not to "
        "noise, blur, rotation or another norm.",
        "One seed was trained; another would differ.",
        "Accuracy is that on the test images; measure again on your own before you rely on it.",
    ]
    return "\n".join(f"* {line}" for line in told)


def _use(row: Row, run: Run) -> str:
    code = USE.format(file=row.shipped, shape=", ".join(map(str, run.card["image_shape"])))
    return 'Input "image": float32 in \\[0, 1\\], NCHW, any N. Output "logits".\n\n' + fenced(code, "python")


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] + ["---:" for _ in head[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *lines])
