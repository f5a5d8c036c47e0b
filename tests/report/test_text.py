from __future__ import annotations

import pytest

from adamas.report.text import cut, escaped, fenced, listed, ms, percent, short, size


@pytest.mark.parametrize(("share", "shown"), [(0.0, "0.0"), (0.6125, "61.3"), (0.9995, "100.0"), (1.0, "100.0")])
def test_percent(share: float, shown: str) -> None:
    assert percent(share) == shown


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0"), (999, "999"), (1000, "1.00k"), (549_994, "550k"), (999_700, "1.00M"), (11_173_962, "11.2M")]
)
def test_short(count: float, shown: str) -> None:
    assert short(count) == shown


@pytest.mark.parametrize(("count", "shown"), [(12, "12 B"), (33_500, "33.5 kB"), (2_203_118, "2.20 MB"), (3e9, "3.00 GB")])
def test_size(count: float, shown: str) -> None:
    assert size(count) == shown


@pytest.mark.parametrize(
    ("time", "shown"), [(0.0712, "0.071"), (0.5, "0.500"), (0.9996, "1.00"), (9.996, "10.0"), (123.4, "123")]
)
def test_ms(time: float, shown: str) -> None:
    assert ms(time) == shown


def test_listed() -> None:
    assert [listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == ["a", "a and b", "a, b and c"]


def test_cut() -> None:
    assert [cut("abcd", 4), cut("abcde", 4)] == ["abcd", "abc…"]


def test_escaped_leaves_no_markup() -> None:
    assert escaped("<script>\n a|b [x](y) `c` *d*") == "\\<script\\> a\\|b \\[x\\](y) \\`c\\` \\*d\\*"
    assert escaped("keep=0.2 (pgd)") == "keep=0.2 (pgd)"


def test_fence_is_longer_than_what_is_inside() -> None:
    assert fenced("plain\n", "yaml") == "```yaml\nplain\n```"
    assert fenced("a ```` b").startswith("`````\n")
