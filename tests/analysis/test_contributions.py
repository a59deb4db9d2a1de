"""Contribution weights of run folders: read, summarized, drawn, and written as CSV beside the figure."""

import csv
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from numpy.typing import NDArray

from scschnet.analysis import plot_contributions, plots, read_contributions, summarize
from scschnet.analysis.contributions import draw_contributions, figure_table
from scschnet.commands.analysis import main

HEADER = "epoch,layer,weight,mean_norm,normalized_weight,normalized_weight_std\n"


def write_run(
    folder: Path,
    n_epochs: int = 12,
    n_layers: int = 4,
    seed: int = 0,
    weight: float | None = None,
    first: int = 1,
) -> Path:
    """A run folder with random weights, or all of them `weight`; norms between 1 and 3."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [HEADER]
    for epoch in range(first, first + n_epochs):
        for layer in range(n_layers):
            w = rng.normal() if weight is None else weight
            norm = rng.uniform(1, 3)
            lines.append(f"{epoch},{layer},{w!r},{norm!r},{w * norm!r},{0.1 * abs(w)!r}\n")
    (folder / "contributions.csv").write_text("".join(lines))
    return folder


def read_table(path: Path) -> tuple[list[str], NDArray[np.float64]]:
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    return header, np.array(rows, dtype=float)


def test_reads_every_column(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", n_epochs=3, n_layers=2)
    found = read_contributions(run)
    table = read_table(run / "contributions.csv")[1].reshape(3, 2, 6)
    np.testing.assert_array_equal(found.epochs, [1, 2, 3])
    np.testing.assert_array_equal(found.weight, table[:, :, 2])
    np.testing.assert_array_equal(found.mean_norm, table[:, :, 3])
    np.testing.assert_array_equal(found.normalized_weight, table[:, :, 4])
    np.testing.assert_array_equal(found.normalized_weight_std, table[:, :, 5])
    assert not found.plain
    from_file = read_contributions(run / "contributions.csv")
    np.testing.assert_array_equal(from_file.weight, found.weight)


@pytest.mark.parametrize("cut", [1, 20, 70])
def test_an_epoch_still_being_written_is_left_out(tmp_path: Path, cut: int) -> None:
    run = write_run(tmp_path / "run", n_epochs=3)
    table = run / "contributions.csv"
    table.write_text(table.read_text()[:-cut])
    np.testing.assert_array_equal(read_contributions(run).epochs, [1, 2])


def test_mean_and_spread_over_runs(tmp_path: Path) -> None:
    runs = [read_contributions(write_run(tmp_path / f"{k}", seed=k)) for k in range(3)]
    summary = summarize(runs)
    values = np.array([run.normalized_weight for run in runs])
    mean = values.sum(axis=0) / 3
    np.testing.assert_allclose(summary.mean, mean, rtol=1e-14)
    variance = np.square(values - mean).sum(axis=0) / 2  # n - 1
    np.testing.assert_allclose(summary.std, np.sqrt(variance), rtol=1e-12)
    assert summary.n_runs == 3


def test_a_single_run_has_its_spread_over_minibatches(tmp_path: Path) -> None:
    run = read_contributions(write_run(tmp_path / "run"))
    summary = summarize([run])
    np.testing.assert_array_equal(summary.mean, run.normalized_weight)
    np.testing.assert_array_equal(summary.std, run.normalized_weight_std)


def test_runs_of_unequal_length_are_compared_where_all_have_epochs(tmp_path: Path) -> None:
    short = read_contributions(write_run(tmp_path / "a", n_epochs=5, first=3))
    long = read_contributions(write_run(tmp_path / "b", n_epochs=20, seed=1))
    summary = summarize([long, short])
    np.testing.assert_array_equal(summary.epochs, range(3, 8))
    expected = (short.normalized_weight + long.normalized_weight[2:7]) / 2
    np.testing.assert_allclose(summary.mean, expected, rtol=1e-14)


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_figure_and_table_hold_the_same_numbers(tmp_path: Path, suffix: str) -> None:
    runs = [write_run(tmp_path / f"{k}", seed=k) for k in range(3)]
    path = tmp_path / f"figure.{suffix}"
    assert plot_contributions(runs, path) == path
    starts = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}
    content = path.read_bytes()
    assert content.startswith(starts[suffix])
    plot_contributions(runs, path)
    assert path.read_bytes() == content  # no date, no random names
    header, rows = read_table(tmp_path / "figure.csv")
    assert header == ["epoch", "layer", "normalized_weight", "normalized_weight_std", "n_runs"]
    summary = summarize([read_contributions(run) for run in runs])
    np.testing.assert_array_equal(rows[:, 2].reshape(-1, 4), summary.mean)
    np.testing.assert_array_equal(rows[:, 3].reshape(-1, 4), summary.std)
    np.testing.assert_array_equal(rows[:, 0].reshape(-1, 4)[:, 0], summary.epochs)


def test_the_table_never_replaces_that_of_a_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    before = (run / "contributions.csv").read_bytes()
    plot_contributions([run], run / "contributions.png")
    assert (run / "contributions.csv").read_bytes() == before
    assert figure_table(run / "contributions.png") == run / "contributions-figure.csv"
    assert (run / "contributions-figure.csv").is_file()
    assert not list(run.glob(".*"))


def test_lines_bands_and_labels_are_those_of_the_summary(tmp_path: Path) -> None:
    summary = summarize([read_contributions(write_run(tmp_path / "run", n_layers=7))])
    with plots.figure_style():
        axes = plots.new_figure().add_subplot()
        draw_contributions(axes, summary)
    lines = [line for line in axes.lines if len(line.get_xdata()) == len(summary.epochs)]
    assert len(lines) == 7
    for layer, line in enumerate(lines):
        np.testing.assert_array_equal(line.get_ydata(), summary.mean[:, layer])
    assert (
        len(
            {
                line.get_color() if k == 0 else tuple(line.get_color())
                for k, line in enumerate(lines)
            }
        )
        == 7
    )
    assert [label.get_text() for label in axes.texts] == [f"$v^{{({k})}}$" for k in range(7)]
    for layer, band in enumerate(axes.collections):
        heights = band.get_paths()[0].vertices[:, 1]
        assert heights.max() == pytest.approx((summary.mean + summary.std)[:, layer].max())
        assert heights.min() == pytest.approx((summary.mean - summary.std)[:, layer].min())
    low, high = axes.get_ylim()
    assert low <= min(0, (summary.mean - summary.std).min())
    assert high >= (summary.mean + summary.std).max()


def test_labels_do_not_overlap_even_if_lines_end_together(tmp_path: Path) -> None:
    summary = summarize([read_contributions(write_run(tmp_path / "run", n_layers=9, weight=0.1))])
    with plots.figure_style():
        figure = plots.new_figure()
        axes = figure.add_subplot()
        draw_contributions(axes, summary)
        heights = sorted(label.get_position()[1] for label in axes.texts)
        points = axes.get_window_extent().height * 72 / figure.dpi
    assert min(np.diff(heights)) * points >= 8  # the font's size


@pytest.mark.parametrize("n_epochs", [1, 2, 300])
@pytest.mark.parametrize("n_layers", [1, 2, 13])
@pytest.mark.parametrize("epochs", ["linear", "log"])
def test_every_shape_is_drawn(tmp_path: Path, n_epochs: int, n_layers: int, epochs: str) -> None:
    run = write_run(tmp_path / "run", n_epochs, n_layers)
    path = plot_contributions([run], tmp_path / "figure.png", epochs=epochs)  # type: ignore[arg-type]
    image = imread(path)
    assert image.shape[1] == pytest.approx(8.6 / 2.54 * 300, abs=1)
    ink = (image[:, :, :3] < 0.9).any(axis=2)
    assert not ink[[0, -1]].any() and not ink[:, [0, -1]].any()  # nothing runs out of the picture
    assert ink.mean() > 0.01


def test_plain_schnet_shows_its_norms_and_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "plain", weight=1.0)
    summary = summarize([read_contributions(run)])
    assert summary.plain
    with plots.figure_style():
        axes = plots.new_figure().add_subplot()
        draw_contributions(axes, summary)
    assert "mean norm" in axes.get_ylabel()
    assert "SchNet" in axes.get_title(loc="left")


def test_the_settings_of_the_caller_neither_matter_nor_change(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    before = plot_contributions([run], tmp_path / "a.png").read_bytes()
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9, "axes.facecolor": "red"}):
        settings = dict(mpl.rcParams)
        after = plot_contributions([run], tmp_path / "b.png").read_bytes()
        assert dict(mpl.rcParams) == settings
    assert after == before


@pytest.mark.parametrize("n_layers", [1, 2, 7, 13])
def test_colors_get_lighter_with_depth_and_stay_readable(n_layers: int) -> None:
    colors = np.array([to_rgb(color) for color in plots.layer_colors(n_layers)])
    luminance = colors @ [0.2126, 0.7152, 0.0722]
    assert len(colors) == n_layers
    assert (np.diff(luminance) > 0).all()
    assert luminance.max() < 0.8


@given(st.lists(st.floats(0, 1), max_size=12), st.floats(0.0, 0.3), st.floats(0.0, 0.2))
def test_spread_positions_keep_their_distance_and_order(
    wanted: list[float], gap: float, low: float
) -> None:
    found = plots.spread_positions(wanted, gap, low, 1.0)
    n = len(wanted)
    assert len(found) == n
    if n:
        assert found.min() >= low - 1e-12 and found.max() <= 1.0 + 1e-12
    room = min(gap, (1.0 - low) / max(n - 1, 1))
    order = np.argsort(wanted, kind="stable")
    assert (np.diff(found[order]) >= room - 1e-12).all()


def test_spread_positions_move_no_more_than_needed() -> None:
    np.testing.assert_allclose(plots.spread_positions([0.9, 0.1, 0.5], 0.2, 0, 1), [0.9, 0.1, 0.5])
    np.testing.assert_allclose(plots.spread_positions([0.5, 0.5], 0.2, 0, 1), [0.4, 0.6])
    np.testing.assert_allclose(plots.spread_positions([0.0, 0.0], 0.2, 0, 1), [0.0, 0.2])
    np.testing.assert_allclose(
        plots.spread_positions([0.5, 0.51, 0.1], 0.2, 0, 1), [0.405, 0.605, 0.1]
    )


def test_runs_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"expected a run folder, but there is no .*nowhere"
    ):
        read_contributions(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"is a folder that holds no run"):
        read_contributions(tmp_path)
    (tmp_path / "config.toml").touch()
    with pytest.raises(FileNotFoundError, match=r"contributions.csv"):
        read_contributions(tmp_path)
    table = tmp_path / "contributions.csv"
    row = "1,0,0.5,2.0,1.0,0.1\n"
    for content, message in (
        (HEADER, "holds no epoch yet"),
        ("", "must have the columns epoch, layer"),
        ("epoch,layer,weight\n", "no mean_norm"),
        (HEADER + "1,0,0.5,x,1.0,0.1\n", "line 2: .* is no row"),
        (HEADER + "1,0,0.5\n" + row, "line 2: .* is no row"),
        (HEADER + "1,0,0.5,2.0,nan,0.1\n", "line 2: `normalized_weight` is not finite"),
        (HEADER + row + row, "epochs rising"),
        (HEADER + row + "1,1,1,1,1,1\n" + "2,1,1,1,1,1\n", "must hold 2 layers"),
        (HEADER + row + "1,2,1,1,1,1\n" + "2,0,1,1,1,1\n", "layers 0 to 2 of each epoch|no epoch"),
    ):
        table.write_text(content)
        with pytest.raises(ValueError, match=message):
            read_contributions(tmp_path)


def test_runs_that_do_not_fit_together_are_named(tmp_path: Path) -> None:
    four = read_contributions(write_run(tmp_path / "four"))
    three = read_contributions(write_run(tmp_path / "three", n_layers=3))
    plain = read_contributions(write_run(tmp_path / "plain", weight=1.0))
    late = read_contributions(write_run(tmp_path / "late", first=100))
    with pytest.raises(ValueError, match=r"same number of layers, got 4 in .*four.* 3 in .*three"):
        summarize([four, three])
    with pytest.raises(ValueError, match=r"got none in .*plain.* some in .*four"):
        summarize([four, plain])
    with pytest.raises(ValueError, match="at least one epoch"):
        summarize([four, late])
    with pytest.raises(ValueError, match="`runs` must hold at least one run"):
        summarize([])


def test_bad_arguments_of_a_figure_are_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with pytest.raises(
        ValueError, match=r"`path` must end in .png, .pdf or .svg, got .*figure.jpg"
    ):
        plot_contributions([run], tmp_path / "figure.jpg")
    with pytest.raises(ValueError, match="`width` must be positive"):
        plot_contributions([run], tmp_path / "figure.png", width=0.0)
    with pytest.raises(ValueError, match="`epochs` must be linear or log, got cubic"):
        plot_contributions([run], tmp_path / "figure.png", epochs="cubic")  # type: ignore[arg-type]
    start = write_run(tmp_path / "start", n_epochs=1, first=0)
    with pytest.raises(ValueError, match="no epoch but 0, got log"):
        plot_contributions([start], tmp_path / "figure.png", epochs="log")
    with pytest.raises(OSError, match=r"must be an existing folder, got none"):
        plot_contributions([run], tmp_path / "missing" / "figure.png")
    assert not (tmp_path / "figure.png").exists()


def test_command_draws_prints_and_names_its_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [write_run(tmp_path / "a", n_epochs=9), write_run(tmp_path / "b", seed=1)]
    out = tmp_path / "figure.svg"
    arguments = ["contributions", *map(str, runs), "-o", str(out), "--epochs", "log"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert out.is_file()
    assert f"{out}\n{tmp_path / 'figure.csv'}\n" in printed.out
    assert "epoch 9" in printed.out and "v3" in printed.out
    assert "runs have 9, 12 epochs; the 9 that all have are shown" in printed.err


def test_command_fails_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["contributions", str(tmp_path / "nowhere")]) == 1
    assert "error: expected a run folder, but there is no" in capsys.readouterr().err
    assert main(["contributions"]) == 2
    assert "at least one run folder" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["contributions", "--epoch"])
    assert stop.value.code == 2
