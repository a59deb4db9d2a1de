"""python -m scschnet.data: convert, info, download; results to stdout, exit codes 0, 1 and 2."""

import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from scschnet.commands.data import main
from scschnet.data import embedded, read

DATA = Path(__file__).parents[1] / "files"


@pytest.fixture
def mirror(tmp_path):
    """Address of a local server of the folder it also gives."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    handler = partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        pass


def test_convert_then_info(tmp_path, capsys):
    target = tmp_path / "set.h5"
    assert main(["convert", str(DATA / "qm9_first20.npz"), str(target), "--energy-key", "G"]) == 0
    out = capsys.readouterr().out
    assert "20/20" in out and f"wrote {target}" in out
    expected = read(DATA / "qm9_first20.npz", energy_key="G")
    np.testing.assert_array_equal(read(target).energy, expected.energy)
    assert main(["info", str(target)]) == 0
    assert "qm9_first20.npz" in capsys.readouterr().out


def test_options_reach_the_reader(tmp_path, capsys):
    np.savez(
        tmp_path / "s.npz", R=np.zeros((1, 1, 3)), z=np.array([1]), E0=[-0.5], f=np.ones((1, 1, 3))
    )
    arguments = ["info", str(tmp_path / "s.npz"), "--energy-key", "E0", "--forces-key", "f"]
    assert main([*arguments, "--units", "Ha, Angstrom"]) == 0
    assert "mean -13.605693" in capsys.readouterr().out
    assert main(arguments) == 1
    assert "--units 'kcal/mol, Angstrom'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["info", "absent.npz"],
            "error: expected a file of structures, but there is no absent.npz",
        ),
        (["convert", "{set}", "{tmp}/a.npz"], "error: `target` must end in .h5"),
        (["convert", "{set}", "{tmp}/there.h5"], "--overwrite replaces it"),
        (["convert", "{set}", "{tmp}/no/a.h5"], "must be an existing folder, got none"),
        (["info", "{set}", "--units", "eV, parsec"], "error: unit must be one of"),
        (["info", "{set}", "--exclude", "x.txt"], "`--exclude` must be left out"),
        (["download", "md17"], "`molecule` must be one of aspirin"),
        (["download", "qm9", "ethanol"], "`molecule` must be left out for qm9"),
        (["download", "qm9", "--sha256", "0"], "`--sha256` must be left out for a set of several"),
        (["download", "rmd17", "--url", "ftp://a/b"], "`--url` must begin with http://"),
    ],
)
def test_failures_exit_with_1(tmp_path, capsys, arguments, message):
    (tmp_path / "there.h5").write_text("mine")
    filled = [a.format(set=DATA / "qm9_first20.npz", tmp=tmp_path) for a in arguments]
    if filled[0] == "download":
        filled += ["--folder", str(tmp_path)]
    assert main(filled) == 1
    out, err = capsys.readouterr()
    assert out == "" and message in err
    assert (tmp_path / "there.h5").read_text() == "mine"


def test_overwrite(tmp_path, capsys):
    (tmp_path / "set.h5").write_text("old")
    assert main(["convert", str(embedded.path()), str(tmp_path / "set.h5"), "--overwrite"]) == 0
    assert len(read(tmp_path / "set.h5")) == 2000
    assert "2,000/2,000" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [[], ["inform", "x"], ["info"], ["info", "x", "--unit-s", "eV"], ["download", "qm8"]],
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["convert", "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    for option in ("--units", "--energy-key", "--forces-key", "--exclude", "--overwrite"):
        assert option in out


def test_download_then_convert(tmp_path, mirror, capsys):
    url, folder = mirror
    (folder / "md17_ethanol.npz").write_bytes(embedded.path().read_bytes())
    arguments = ["download", "md17", "ethanol", "--folder", str(tmp_path)]
    assert main([*arguments, "--url", f"{url}/md17_ethanol.npz"]) == 0
    out, err = capsys.readouterr()
    assert "recorded; none is published" in out and "--units 'kcal/mol, Angstrom'" in out
    assert "md17_ethanol.npz" in err
    source, target = tmp_path / "md17_ethanol.npz", tmp_path / "ethanol.h5"
    assert main(["convert", str(source), str(target), "--units", "kcal/mol, Angstrom"]) == 0
    np.testing.assert_array_equal(read(target).forces, embedded.load().forces)


def test_download_of_several_files_compares_checksums(tmp_path, mirror, capsys):
    url, folder = mirror
    (folder / "dsgdb9nsd.xyz.tar.bz2").write_bytes(b"not QM9")
    assert main(["download", "qm9", "--folder", str(tmp_path), "--url", url]) == 1
    assert "dsgdb9nsd.xyz.tar.bz2 must have SHA-256 3a63848ac8" in capsys.readouterr().err
    assert not (tmp_path / "dsgdb9nsd.xyz.tar.bz2").exists()


def test_checksum_given_by_the_user(tmp_path, mirror, capsys):
    url, folder = mirror
    (folder / "r.tar").write_bytes(b"x")
    arguments = ["download", "rmd17", "--folder", str(tmp_path), "--url", f"{url}/r.tar"]
    assert main([*arguments, "--sha256", "0" * 64]) == 1
    checksum = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    assert main([*arguments, "--sha256", checksum]) == 0
    assert f"{checksum}, as expected" in capsys.readouterr().out


def test_as_a_program():
    command = [sys.executable, "-m", "scschnet.data", "info", str(embedded.path())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2,000/2,000" in done.stdout and done.stderr == ""
    failed = subprocess.run([*command[:-1], "absent"], capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("error: ")
