"""Options of a training: defaults, presets, file, command line, and what is refused."""

import dataclasses

import pytest

from scschnet.commands.train import main, parse_command_line
from scschnet.runs.config import (
    PRESETS,
    TrainConfig,
    read_config,
    read_run_config,
    write_config,
)


def test_defaults_are_the_quick_preset():
    assert parse_command_line([]).config == TrainConfig()
    assert parse_command_line(["--preset", "quick"]).config == TrainConfig()


def test_presets_hold_the_papers_numbers():
    md17 = parse_command_line(["--preset", "paper-md17"]).config
    assert (md17.batch_size, md17.lr, md17.schedule, md17.restart_period) == (50, 5e-4, "sgdr", 50)
    assert (md17.n_features, md17.n_interactions, md17.rho) == (256, 6, 0.1)
    assert (md17.n_train, md17.n_val) == (950, 50)
    qm9 = parse_command_line(["--preset=paper-qm9"]).config
    assert (qm9.batch_size, qm9.lr, qm9.rho) == (100, 1e-4, 1.0)
    assert (qm9.n_train, qm9.n_val, qm9.n_features, qm9.n_interactions) == (105_000, 5_000, 256, 6)


def test_presets_name_only_options_and_change_them():
    for options in PRESETS.values():
        for name, value in options.items():
            assert getattr(TrainConfig(), name) != value


def test_file_overrides_preset_and_command_line_overrides_file(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('preset = "paper-md17"\nlr = 1e-3\nepochs = 7\ncutoff = 6\n')
    config = parse_command_line(["--config", str(file), "--epochs", "9"]).config
    assert (config.preset, config.lr, config.epochs, config.batch_size) == (
        "paper-md17",
        1e-3,
        9,
        50,
    )
    assert config.cutoff == 6.0 and isinstance(config.cutoff, float)


def test_round_trip(tmp_path):
    config = dataclasses.replace(TrainConfig(), data='odd "name".npz', lr=3e-5, seed=4)
    write_config(tmp_path / "config.toml", config)
    assert TrainConfig(**read_config(tmp_path / "config.toml")) == config


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("n_feature = 3", "unknown option `n_feature`; the nearest valid one is `n_features`"),
        ("learning_rate = 3", "unknown option `learning_rate`; the nearest valid one is"),
        ("epochs = 2.5", "`epochs` must be int, got 2.5"),
        ("epochs = true", "`epochs` must be int, got True"),
        ("lr = 'fast'", "`lr` must be float, got 'fast'"),
        ("lr = ", "is not valid TOML"),
        ("rho = 2.0", "`rho` must lie between 0 and 1, got 2.0"),
        ("epochs = 0", "`epochs` must be at least 1, got 0"),
        ("committee = 0", "`committee` must be at least 1, got 0"),
        ("ema = 1.0", "`ema` must lie between 0 and 1, 1 excluded, got 1.0"),
        ("lr = -1.0", "`lr` must be positive, got -1.0"),
        ("skip = 'both'", "`skip` must be one of weighted, plain, got 'both'"),
        (
            "preset = 'fast'",
            "`preset` must be one of quick, md17, md17-long, paper-md17, paper-qm9, got 'fast'",
        ),
    ],
)
def test_bad_files_are_refused(tmp_path, capsys, content, message):
    file = tmp_path / "run.toml"
    file.write_text(content)
    assert main(["--config", str(file)]) == 2
    assert message in capsys.readouterr().err


def test_missing_file(capsys):
    assert main(["--config", "absent.toml"]) == 2
    assert (
        "`--config` must be a file of options (TOML), but there is no absent.toml"
        in capsys.readouterr().err
    )


def test_unknown_argument_names_the_nearest(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--n-featuers", "3"])
    assert caught.value.code == 2
    assert "--n-features" in capsys.readouterr().err


def test_bad_values_on_the_command_line(capsys):
    for arguments, message in (
        (["--rho", "3"], "error: `--rho` must lie between 0 and 1, got 3.0\n"),
        (["--n-train=0"], "error: `--n-train` must be at least 1"),
        (["--schedule", "linear"], "linear"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        assert message in capsys.readouterr().err
    assert main(["--config"]) == 2
    assert "`--config` must be followed by a value" in capsys.readouterr().err


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for field in dataclasses.fields(TrainConfig):
        assert "--" + field.name.replace("_", "-") in text
    assert "--resume" in text and "--config" in text


def test_resume_takes_its_options_from_the_run(tmp_path):
    write_config(tmp_path / "config.toml", TrainConfig(epochs=5, lr=1e-3))
    invocation = parse_command_line(["--resume", str(tmp_path), "--epochs", "8"])
    assert invocation.resume == tmp_path
    assert (invocation.config.epochs, invocation.config.lr) == (8, 1e-3)


def test_resume_of_a_run_from_before_there_were_two_optimizers(tmp_path):
    write_config(tmp_path / "config.toml", TrainConfig())
    lines = (tmp_path / "config.toml").read_text().splitlines()
    kept = [line for line in lines if not line.startswith("optimizer")]
    assert len(kept) == len(lines) - 1
    (tmp_path / "config.toml").write_text("\n".join(kept))
    assert parse_command_line(["--resume", str(tmp_path)]).config.optimizer == "adam"


def test_options_that_an_old_run_does_not_name_have_the_value_that_was_fixed_before(tmp_path):
    (tmp_path / "config.toml").write_text('preset = "paper-qm9"\nepochs = 3\n')
    config = read_run_config(tmp_path)
    assert (config.optimizer, config.loss, config.stress_weight) == ("adam", "total", 0.0)
    assert (config.epochs, config.n_train, config.rho) == (3, 105_000, 1.0)
    assert config.source == "embedded MD17 ethanol"


def test_options_of_a_folder_that_holds_no_run(tmp_path):
    (tmp_path / "best.pt").write_bytes(b"a checkpoint without its run")
    with pytest.raises(FileNotFoundError, match=r"is no run folder: it has no config\.toml"):
        read_run_config(tmp_path)


def test_resume_refuses_to_be_another_run(tmp_path, capsys):
    write_config(tmp_path / "config.toml", TrainConfig())
    assert main(["--resume", str(tmp_path), "--lr", "1e-5"]) == 2
    assert "`--lr` of a resumed run must stay 0.004, got 1e-05" in capsys.readouterr().err
    assert main(["--resume", str(tmp_path / "absent")]) == 2
    assert (
        "`--resume` must be a run folder or a committee of run folders, but there is no"
        in capsys.readouterr().err
    )
