"""Tables that commands print: fitted to a terminal, as Markdown, or as CSV."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pandas as pd
import pytest
from factories import make_result

from tokbench.cli import tables
from tokbench.metric_names import Section
from tokbench.results.markdown import Grid
from tokbench.results.tidy import identity

ROWS = ("jpeg.q50", "toy.p8", "webp.q90")


def printed(grid: Grid, width: int) -> str:
    from rich.console import Console

    stream = io.StringIO()
    tables.print_grid(Console(file=stream, width=width), grid)
    return stream.getvalue()


@pytest.fixture
def committed(root: Path, tmp_path: Path) -> Path:
    """A results folder with three committed results."""
    for name in ROWS:
        (tmp_path / name).mkdir()
        for path in (root / "results" / name).glob("samples-reconstruct.*"):
            shutil.copy(path, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("width", [40, 60, 100, 300])
def test_a_table_fits_the_width_and_loses_no_cell(width: int) -> None:
    head = ["adapter", *(f"metric {i + 10} ↑" for i in range(12))]
    body = [[name, *(f"{i + 10}.25 ± 0.01" for i in range(12))] for name in ROWS]
    text = printed(Grid(head, [Section.PAIRED] * 12, body, False, []), width)
    assert max(map(len, text.splitlines())) <= width
    for cell in [*head[1:], *body[0][1:]]:
        assert text.count(cell) == (1 if cell in head else len(ROWS))
    assert text.count("adapter") == len(tables.blocks(head, body, width)) == text.count("toy.p8")
    assert (text.count("adapter") == 1) is (width == 300)


def test_one_adapter_is_a_list_with_sections() -> None:
    sections = [Section.RATE, Section.PAIRED, Section.PAIRED]
    grid = Grid(["adapter", "bpp ↓", "PSNR ↑", "SSIM ↑"], sections, [["toy.p8", "0.2", "20.1", "0.6"]], False, [])
    assert [line.split() for line in printed(grid, 100).splitlines() if line] == [
        ["toy.p8"], ["Rate"], ["bpp", "↓", "0.2"], ["Reconstruction"], ["PSNR", "↑", "20.1"], ["SSIM", "↑", "0.6"],
    ]  # fmt: skip


def test_equal_warnings_are_one_line() -> None:
    warnings = [("a", "few images"), ("b", "few images"), ("b", "other")]
    text = printed(Grid(["adapter", "x"], [Section.RATE], [["a", "1"], ["b", "2"]], False, warnings), 100)
    assert text.splitlines()[-2:] == ["warning a, b: few images", "warning b: other"]


def test_leaderboard_prints_markdown_in_a_pipe(cli, committed: Path) -> None:
    done = cli("leaderboard", "--out", committed)
    assert done.exit_code == 0, done.stderr
    written = (committed / "leaderboard" / "samples-reconstruct.md").read_text()
    assert written.partition("\n\n")[2] in done.stdout.replace("samples-reconstruct: ", "")
    assert "samples-reconstruct.csv" in done.stderr


def test_leaderboard_prints_a_table_of_the_terminals_width(
    cli, committed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    done = cli("leaderboard", "--out", committed, "--format", "table")
    assert done.exit_code == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "|" not in done.stdout and "PSNR ↑" in done.stdout


def test_leaderboard_prints_one_csv_table(cli, committed: Path) -> None:
    done = cli("leaderboard", "--out", committed, "--format", "csv")
    assert done.exit_code == 0, done.stderr
    assert sorted(pd.read_csv(io.StringIO(done.stdout))["adapter"]) == sorted(ROWS)


def test_csv_of_several_tables_separates_networks_and_ends_with_the_identity(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = make_result(metrics={"psnr": {"value": 30.0}, "lpips": {"value": 0.1}}, dataset="first")
    second = make_result(metrics={"ssim": {"value": 0.9}, "lpips": {"value": 0.2}}, dataset="second")
    for result, network in ((first, "alex"), (second, "vgg")):
        result.provenance["metrics"] = {"lpips": {"network": network}}
    printer = tables.TablePrinter("csv")
    printer.add("first", [first])
    printer.add("second", [second])
    printer.finish()
    rows = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert list(rows["data"]) == ["first", "second"]
    assert rows["lpips[alex]"][0] == 0.1 and rows["lpips[vgg]"][1] == 0.2 and "lpips" not in rows
    assert list(rows)[-len(identity(first)) :] == list(identity(first))


def test_eval_prints_csv_on_request(cli, photo_folder: Path, tmp_path: Path) -> None:
    command = ["eval", "jpeg.q50", "jpeg.q90", "--data", photo_folder, "--metrics", "psnr", "--format", "csv"]
    done = cli(*command, "--out", tmp_path)
    assert done.exit_code == 0, done.stderr
    assert list(pd.read_csv(io.StringIO(done.stdout))["adapter"]) == ["jpeg.q50", "jpeg.q90"]


def test_the_demo_prints_its_table_once(root: Path) -> None:
    makefile = (root / "Makefile").read_text()
    demo = makefile.partition("\ndemo: ")[2].partition("\n\n")[0]
    assert ">/dev/null" in demo.splitlines()[1] and "leaderboard --out out" in demo.splitlines()[2]
