"""The figure as a file: the same bytes twice, refusals before anything is drawn, and the texts it is made of."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

import roofline
from roofline._plot_data import common_name, elide, limits
from roofline.errors import InputError, UnknownNameError
from roofline.plot import plot, save


def test_svg_is_the_same_twice(fused: roofline.GraphEstimate, tmp_path: Path) -> None:
    first, second = tmp_path / "a.svg", tmp_path / "b.SVG"
    save(fused, first)
    save(fused, str(second))
    assert first.read_bytes() == second.read_bytes()
    text = first.read_text("utf-8")
    assert "<svg" in text and "dc:date" not in text
    assert "rows-convolution" in text


def test_png_is_the_size_of_a_slide_and_the_same_twice(fused: roofline.GraphEstimate, tmp_path: Path) -> None:
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    save(fused, first)
    save(fused, second)
    content = first.read_bytes()
    assert content == second.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert (int.from_bytes(content[16:20]), int.from_bytes(content[20:24])) == (1600, 992)


def test_save_passes_the_settings_on(fused: roofline.GraphEstimate, tmp_path: Path) -> None:
    save(fused, tmp_path / "a.svg", level="l2", label_top=0, measured={fused.layers[0].name: 1e-6})
    text = (tmp_path / "a.svg").read_text("utf-8")
    assert 'id="measured-convolution"' in text and 'id="level-l2"' in text
    assert 'id="level-dram"' not in text and 'id="row-label"' not in text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.pdf", "cannot tell the format of figure '{path}' from the suffix '.pdf': known: .svg, .png. "),
        ("a", "cannot tell the format of figure '{path}' from no suffix: known: .svg, .png. "),
    ],
)
def test_an_unknown_suffix_is_refused(paper: roofline.GraphEstimate, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        save(paper, tmp_path / name)
    assert str(caught.value) == message.format(path=tmp_path / name) + "Next: end the path in one of them."
    assert not (tmp_path / name).exists()


def test_a_path_that_cannot_be_written_is_refused_before_anything_is_drawn(
    paper: roofline.GraphEstimate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roofline.plot.plot", lambda *_, **__: pytest.fail("drawn"))
    next_step = "Next: choose a file in a folder you may write to."
    missing = tmp_path / "none" / "a.svg"
    with pytest.raises(InputError) as caught:
        save(paper, missing)
    assert str(caught.value) == f"cannot write figure '{missing}': there is no folder '{missing.parent}'. {next_step}"
    folder = tmp_path / "folder.svg"
    folder.mkdir()
    with pytest.raises(InputError) as caught:
        save(paper, folder)
    assert str(caught.value) == f"cannot write figure '{folder}': it is a folder. {next_step}"
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(InputError, match="permission denied"):
        save(paper, tmp_path / "a.svg")


def test_a_disk_that_fails_late_is_the_same_error(
    paper: roofline.GraphEstimate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"cannot write figure '.*a\.png': No space left on device\. Next: "):
        save(paper, tmp_path / "a.png")


def test_wrong_arguments_are_refused(paper: roofline.GraphEstimate) -> None:
    with pytest.raises(UnknownNameError) as caught:
        plot(paper, level="l3")
    assert str(caught.value) == (
        "unknown memory level 'l3': did you mean 'l2'? Next: choose a level of t4-like, or none for all together."
    )
    with pytest.raises(UnknownNameError, match=r"^unknown row in measured 'conv_1': did you mean 'conv1'"):
        plot(paper, measured={"conv_1": 1e-6})
    with pytest.raises(InputError) as negative:
        plot(paper, label_top=-1)
    assert str(negative.value) == "label_top must be at least 0, got -1. Next: pass how many rows to label."
    for seconds in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError) as time:
            plot(paper, measured={"conv1": seconds})
        assert str(time.value) == (
            f"measured time of row 'conv1' must be a positive number of seconds, got {seconds}. Next: leave it out."
        )


@pytest.mark.parametrize(
    ("names", "common"),
    [
        (["conv1"], "conv1"),
        (["a.0.q", "a.1.q"], "a.*.q"),
        (["a.conv1", "a.conv2"], "a.conv*"),
        (["a.q", "a.o"], "a.{o,q}"),
        (["a.q", "a.k", "a.v", "a.o"], "a.*"),
        (["head", "a.0"], "head, …"),
    ],
)
def test_several_names_are_written_as_one(names: list[str], common: str) -> None:
    assert common_name(names) == common


def test_long_texts_lose_their_middle() -> None:
    assert elide("abcdefghij", 10) == "abcdefghij"
    assert elide("abcdefghijk", 7) == "abc…ijk"


def test_limits_are_round_and_leave_room() -> None:
    low, high = limits([1.0, 1000.0], 5.0, 1.0, 1.0)
    assert (low, high) == pytest.approx((0.1, 10000.0))
    low, high = limits([3.0], 5.0, 0.5, 0.5)
    assert low < 3 / 5 and high > 3 * 5


def test_importing_the_package_does_not_import_matplotlib() -> None:
    code = "import sys, roofline, roofline.plot; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_drawing_leaves_pyplot_alone(paper: roofline.GraphEstimate) -> None:
    before = "matplotlib.pyplot" in sys.modules
    plot(paper)
    assert ("matplotlib.pyplot" in sys.modules) == before
