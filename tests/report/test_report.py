"""The report: complete, self-contained, readable aloud and on a phone, and its numbers as CSV beside it."""

import base64
import csv
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from scschnet.checkpoint import load_checkpoint
from scschnet.commands.analysis import main as analysis
from scschnet.commands.report import main
from scschnet.commands.train import main as train_command
from scschnet.data import StructureSet, write_hdf5
from scschnet.report.figures import Colors, inline_svg
from scschnet.report.molecule import plane
from scschnet.runs.config import TrainConfig
from scschnet.train.loop import train

SMALL = {"n_train": 40, "n_val": 10, "n_features": 8, "n_rbf": 12, "cutoff": 4.0, "epochs": 3}
VOID = {"meta", "link", "br", "img", "hr", "input", "path", "use", "rect", "line", "image"}
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


class Page(HTMLParser):
    """Every element of a page with its parents, attributes and text; complains about stray ends."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[dict] = []
        self.open: list[dict] = []
        self.feed(content)
        assert not self.open, [element["tag"] for element in self.open]

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "attrs": dict(attrs), "text": "", "parents": list(self.open)}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.elements.append(
            {"tag": tag, "attrs": dict(attrs), "text": "", "parents": list(self.open)}
        )

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, tag, inside=None):
        return [
            e
            for e in self.elements
            if e["tag"] == tag and (inside is None or any(p is inside for p in e["parents"]))
        ]


def trained(path: Path, **options) -> Path:
    train(TrainConfig(out=str(path), **(SMALL | {"n_interactions": 2} | options)))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run made by the command, which ends by writing the report."""
    path = tmp_path_factory.mktemp("runs") / "one"
    options = SMALL | {"n_interactions": 2, "out": path}
    assert train_command([f"--{name.replace('_', '-')}={v}" for name, v in options.items()]) == 0
    return path


@pytest.fixture(scope="module")
def report(run):
    return run / "report.html"


@pytest.fixture(scope="module")
def page(report):
    return Page(report.read_text())


def test_the_page_needs_no_other_file(report):
    content = report.read_text()
    assert len(content) < 5_000_000
    assert "<script" not in content and "<link" not in content and "@import" not in content
    for target in re.findall(r'(?:src|href)="([^"]*)"', content):
        assert target.startswith(("#", "data:", "report-data/")), target[:60]
    for target in re.findall(r"url\(([^)]*)\)", content):
        assert target.startswith("#"), target[:60]


def test_every_figure_is_named_described_and_captioned(page):
    figures = page.all("figure")
    assert len(figures) >= 14
    ids = [e["attrs"]["id"] for e in page.elements if "id" in e["attrs"]]
    assert len(ids) == len(set(ids))
    for figure in figures:
        (svg,) = page.all("svg", figure)
        assert svg["attrs"]["role"] == "img" and svg["attrs"]["viewbox"]
        for name in svg["attrs"]["aria-labelledby"].split():
            (element,) = [e for e in page.elements if e["attrs"].get("id") == name]
            assert element["text"].strip()
        assert len(page.all("figcaption", figure)[0]["text"]) > 20


def test_every_table_has_a_caption_and_scopes(page):
    for table in page.all("table"):
        assert page.all("caption", table)[0]["text"]
        assert all(e["attrs"]["scope"] in ("col", "row") for e in page.all("th", table))
        rows = page.all("tr", table)
        sizes = {
            len([e for e in page.elements if e["parents"] and e["parents"][-1] is row])
            for row in rows
        }
        assert len(sizes) == 1


def test_headings_landmarks_and_links(page):
    assert page.all("html")[0]["attrs"]["lang"] == "en"
    assert len(page.all("h1")) == 1 and len(page.all("main")) == 1
    sections = {e["attrs"]["id"] for e in page.all("h2")}
    expected = {"summary", "data", "learning", "errors", "weights", "layers", "shapley", "reach"}
    assert sections == expected | {"filters", "familiarity", "error-bars", "cost", "settings"}
    ids = {e["attrs"]["id"] for e in page.elements if "id" in e["attrs"]}
    for link in page.all("a"):
        if link["attrs"]["href"].startswith("#"):
            assert link["attrs"]["href"][1:] in ids
        assert link["text"].strip()
    assert any(e["attrs"].get("name") == "viewport" for e in page.all("meta"))
    for box in [e for e in page.elements if e["attrs"].get("class") == "scroll"]:
        assert box["attrs"]["tabindex"] == "0" and box["attrs"]["aria-label"]


def test_links_to_numbers_hold_what_the_files_hold(report, page):
    folder = report.with_name("report-data")
    seen = set()
    for link in page.all("a"):
        if "download" not in link["attrs"]:
            continue
        file = folder / link["attrs"]["download"]
        seen.add(file.name)
        if link["attrs"]["href"].startswith("data:"):
            content = base64.b64decode(link["attrs"]["href"].split(",", 1)[1])
            assert content == file.read_bytes()
    assert seen == {file.name for file in folder.iterdir()}
    for file in folder.iterdir():
        header, *rows = file.read_text().splitlines()
        assert rows and "," in header, file


def test_the_page_says_what_the_run_says(run, page):
    test = json.loads((run / "test.json").read_text())
    words = page.all("main")[0]["text"]
    assert f"{test['energy']['eV']['mae']:.4g}" in words
    assert f"{test['forces']['kcal/mol/Å']['rmse']:.4g}" in words
    assert "sc-SchNet with 2 blocks of 8 features" in page.all("header")[0]["text"]
    assert (
        "arXiv:1810.09751" in words
        and words.count("Ours, not the paper's") + words.count("is ours, not the paper's") >= 4
    )
    assert hashlib.sha256((run / "best.pt").read_bytes()).hexdigest() in words
    assert words.count("bonds and contacts of held-out structures") == 1
    # Errors in the figure are not those of the table, and the page says why.
    drawn = (
        f"200 structures, chosen evenly from the {test['energy']['n']:,} of the table, predicted"
    )
    assert words.count(drawn) == 2


@pytest.mark.slow
def test_forces_that_jump_are_to_be_looked_at_before_use(tmp_path):
    path = trained(tmp_path / "rough", cutoff=2.0, cutoff_function="none")
    assert main([str(path), "-o", str(tmp_path / "rough.html")]) == 0
    page = Page((tmp_path / "rough.html").read_text())
    worries = page.all("body")[0]["text"].split("To look at before use")[1]
    assert re.search(r"Along \d+ of \d+ bonds and contacts the force jumps: .*at 2\.00 Å", worries)


@pytest.mark.slow
def test_vibrations_and_rigidity_are_shown_where_the_run_has_them(run, page, tmp_path, capsys):
    assert "Vibrations" not in [e["text"] for e in page.all("h2")]
    none = (
        "There are no standard deviations from rigidity: scschnet analysis error-bars RUN adds them"
    )
    assert none in page.all("main")[0]["text"]
    path, out = shutil.copytree(run, tmp_path / "one"), tmp_path / "report.html"
    assert analysis(["error-bars", str(path), "-o", str(tmp_path / "bars.png")]) == 0
    assert analysis(["modes", str(path), "-o", str(path / "modes.png")]) == 0
    assert main([str(path), "-o", str(out)]) == 0
    shown = Page(out.read_text())
    words = shown.all("main")[0]["text"]
    assert "Vibrations" in [e["text"] for e in shown.all("h2")]
    assert "Mean layer against frequency" in words and none not in words
    with (path / "modes.csv").open() as file:
        for row in csv.DictReader(file):
            assert f"{float(row['frequency std from rigidity (1/cm)']):.1f}{row['motion']}" in words
    assert (tmp_path / "report-data/modes.csv").read_bytes() == (path / "modes.csv").read_bytes()
    with (tmp_path / "report-data/layer-energies.csv").open() as file:
        rows = list(csv.DictReader(file))
    stds = [float(row["energy std from rigidity (eV)"]) for row in rows]
    assert len(stds) > 100 and min(stds) > 0
    assert re.search(r"-?\d\.\d{3} ± \d\.\d{3}", words)
    (path / "modes.csv").write_text("a,b\n")
    capsys.readouterr()
    assert main([str(path), "-o", str(out)]) == 1
    assert (
        "modes.csv must be a table that `scschnet analysis modes` wrote" in capsys.readouterr().err
    )


@pytest.mark.slow
def test_several_runs_show_their_spread(run, tmp_path):
    other = trained(tmp_path / "other", seed=1)
    out = tmp_path / "both.html"
    assert main([str(run), str(other), "-o", str(out)]) == 0
    words = Page(out.read_text()).all("body")[0]["text"]
    assert "2 runs of sc-SchNet" in words and "standard deviation over 2 runs" in words
    assert "one: energy" in words and "other: energy" in words
    assert "in parentheses the standard deviation over runs" in words
    assert re.search(r"-?\d\.\d{3} \(\d\.\d{3}\)", words)


@pytest.mark.slow
def test_energies_alone_plain_schnet_and_no_test_part(tmp_path):
    split = tmp_path / "split.npz"
    np.savez(split, train=np.arange(30), val=np.arange(30, 40), test=np.zeros(0, np.int64))
    options = {"rho": 1.0, "skip": "plain", "n_interactions": 1, "split_file": str(split)}
    path = trained(tmp_path / "plain", **options)
    assert main([str(path), "-o", str(tmp_path / "plain.html")]) == 0
    page = Page((tmp_path / "plain.html").read_text())
    words = page.all("body")[0]["text"]
    assert "SchNet with 1 block of" in words and "SchNet has no weights" in words


@pytest.fixture(scope="module")
def crystals(tmp_path_factory):
    """A run on periodic structures of two sizes with stress, and its report."""
    folder = tmp_path_factory.mktemp("crystals")
    rng = np.random.default_rng(0)
    sizes = np.tile([3, 6], 20)
    n, n_atoms = len(sizes), sizes.sum()
    places = np.concatenate([np.arange(size) for size in sizes])
    grid = np.stack([places % 2, places // 2 % 2, places // 4], axis=1) * 2.0
    structures = StructureSet(
        grid + rng.uniform(0, 0.3, (n_atoms, 3)),
        np.where(places % 2, 1, 8),
        np.concatenate([[0], np.cumsum(sizes)]),
        cells=np.tile(4.0 * np.eye(3), (n, 1, 1)),
        pbc=np.ones((n, 3), bool),
        energy=-10.0 * sizes + rng.normal(size=n),
        forces=rng.normal(size=(n_atoms, 3)),
        stress=rng.normal(size=(n, 3, 3)) / 100,
    )
    write_hdf5(folder / "crystals.h5", structures)
    options = {"data": str(folder / "crystals.h5"), "n_train": 24, "n_val": 6}
    run = trained(folder / "run", **options)
    assert main([str(run), "-o", str(folder / "report.html")]) == 0
    return run, folder / "report.html"


def test_errors_are_per_atom_where_structures_differ_in_size_or_are_periodic(crystals):
    run, report = crystals
    test = json.loads((run / "test.json").read_text())
    page = Page(report.read_text())
    words = page.all("main")[0]["text"]
    energy = test["energy_per_atom"]["meV"]["mae"]
    forces = 1000 * test["forces"]["eV/Å"]["mae"]
    stress = test["stress"]["GPa"]["mae"]
    sentence = f"energy {energy:.3g} meV/atom, forces {forces:.3g} meV/Å, stress {stress:.3g} GPa"
    assert f"Mean absolute test error: {sentence}" in words
    cards = {e["text"] for e in page.all("dd")}
    assert any(card.startswith(f"{energy:.3g} meV/atom") for card in cards), cards
    assert any(card.startswith(f"{forces:.3g} meV/Å") for card in cards)
    (errors,) = [t for t in page.all("table") if "Errors on the whole" in t["text"]]
    assert f"{energy:.4g}" in errors["text"] and "energy per atom" in errors["text"]
    assert f"{test['energy']['eV']['mae']:.4g}" in errors["text"]


def test_learning_curves_are_those_of_the_headline_and_all_are_drawn(crystals):
    run, report = crystals
    table = report.with_name("report-data") / "validation-mae.csv"
    header, *rows = table.read_text().splitlines()
    assert header == "run,epoch,energy (meV/atom),forces (meV/Å),stress (GPa)"
    with (run / "metrics.csv").open() as file:
        metrics = list(csv.DictReader(file))
    for row, epoch in zip(rows, metrics, strict=True):
        per_atom, force = (float(value) for value in row.split(",")[2:4])
        assert per_atom == pytest.approx(1000 * float(epoch["val_energy_per_atom_mae"]))
        assert force == pytest.approx(1000 * float(epoch["val_forces_mae"]))
    page = Page(report.read_text())
    (svg,) = [e for e in page.all("svg") if "Learning curve: validation MAE" in e["text"]]
    curves = [e for e in page.all("path", svg) if "clip-path" in e["attrs"]]
    colors = {re.search(r"stroke: ([^;]+)", e["attrs"]["style"])[1] for e in curves}
    assert len(curves) == len(colors) == 3  # stress was left out


def test_runs_of_before_there_were_errors_per_atom_show_energies(crystals, tmp_path):
    run = shutil.copytree(crystals[0], tmp_path / "old")
    content = json.loads((run / "test.json").read_text())
    del content["energy_per_atom"]
    (run / "test.json").write_text(json.dumps(content))
    assert main([str(run), "-o", str(tmp_path / "old.html")]) == 0
    words = Page((tmp_path / "old.html").read_text()).all("main")[0]["text"]
    assert f"error: energy {content['energy']['kcal/mol']['mae']:.3g} kcal/mol" in words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("lr = 0.002", "but lr differs: 0.004 in {run}, 0.002 in {copy}"),
        ("n_interactions = 3\nlr = 0.1", "but n_interactions (and lr) differs: 2 in {run}, 3 in"),
    ],
)
def test_runs_that_differ_in_more_than_chance_are_not_pooled(run, tmp_path, capsys, change, words):
    """Seen: three learning rates as one mean with a spread."""
    copy = shutil.copytree(run, tmp_path / "copy")
    config = (copy / "config.toml").read_text()
    for line in change.splitlines():
        config = re.sub(rf"^{line.split()[0]} = .*$", line, config, flags=re.M)
    (copy / "config.toml").write_text(config)
    expected = "runs shown together must differ in their seeds alone, "
    expected += words.format(run=run, copy=copy)
    commands = (
        main,
        lambda words: analysis(["contributions", *words]),
        lambda words: analysis(["elements", *words]),
    )
    for command in commands:
        assert command([str(run), str(copy), "-o", str(tmp_path / "out.html")]) == 1
        error = capsys.readouterr().err
        assert expected in error and error.count("\n") == 1


def test_runs_that_cannot_be_reported_are_named(run, tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == 1
    assert "expected a run folder, but there is no" in capsys.readouterr().err
    assert main([]) == 2
    assert "unfamiliarity" in load_checkpoint(run / "best.pt").metadata  # the command left it there
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "metrics.csv").unlink()
    assert main([str(copy)]) == 1
    assert "there are no metrics at" in capsys.readouterr().err
    (copy / "contributions.csv").unlink()
    assert main([str(copy)]) == 1
    assert "there are no contribution weights at" in capsys.readouterr().err
    assert main([str(run), "-o", str(tmp_path / "missing" / "report.html")]) == 1


def test_the_view_of_a_molecule_hides_no_atom():
    stacked = np.array([[0, 0, 0], [0, 0, 1.5], [4.0, 0, 0], [4.0, 0, 1.5], [0, 1.0, 0.7]])
    at = plane(stacked)
    apart = np.linalg.norm(at[:, None, :2] - at[None, :, :2], axis=2)
    assert apart[np.triu_indices(5, 1)].min() > 0.7
    lengths = np.linalg.norm(at[:, None] - at[None], axis=2)
    np.testing.assert_allclose(lengths, np.linalg.norm(stacked[:, None] - stacked[None], axis=2))
    assert plane(np.zeros((1, 3))).shape == (1, 3)


def test_colors_become_variables_that_follow_the_page():
    colors = Colors()
    themed = colors.themed(
        '<path style="stroke: #000000; fill: #33608c"/><path style="fill: #123456"/>'
    )
    assert themed == (
        '<path style="stroke: currentColor; fill: var(--c33608c)"/><path style="fill: #123456"/>'
    )
    assert "--c33608c: #33608c;" in colors.style() and "--c33608c: #8ab4e0;" in colors.style()
    svg = inline_svg(
        '<?xml?><svg viewBox="0 0 1 1"><g id="a"/><use xlink:href="#a"/></svg>', 3, "A & B", "c", 9
    )
    assert 'id="f3-a"' in svg and 'href="#f3-a"' in svg and "A &amp; B" in svg


MEASURE = """<script>
document.documentElement.style.width = '%dpx';
let worst = 0;
for (const e of document.querySelectorAll('body *')) {
  if (e.closest('.scroll') && !e.matches('.scroll') || e.closest('svg') && !e.matches('svg') || e.matches('.skip')) continue;
  worst = Math.max(worst, e.getBoundingClientRect().right);
}
document.title = 'right ' + Math.ceil(worst);
</script>"""


def browse(folder: Path, *arguments: str) -> str:
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={folder / 'browser'}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
class TestInABrowser:
    @pytest.mark.parametrize("width", [360, 1200])
    def test_nothing_runs_out_of_the_page(self, report, tmp_path, width):
        copy = tmp_path / "page.html"
        copy.write_text(report.read_text().replace("</body>", MEASURE % width + "</body>"))
        found = re.search(r"<title>right (\d+)", browse(tmp_path, "--dump-dom", copy.as_uri()))
        assert found and 300 < int(found[1]) <= width

    @pytest.mark.parametrize(("scheme", "low", "high"), [(1, 0.8, 1.0), (0, 0.05, 0.3)])
    def test_light_and_dark(self, report, tmp_path, scheme, low, high):
        picture = tmp_path / "page.png"
        settings = f"--blink-settings=preferredColorScheme={scheme}"
        browse(
            tmp_path, settings, f"--screenshot={picture}", "--window-size=800,6000", report.as_uri()
        )
        image = imread(picture)[:, :, :3]
        assert low < image.mean() < high
        assert (np.abs(image - image.mean()) > 0.3).any(axis=2).mean() > 0.01
