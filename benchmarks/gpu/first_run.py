"""A first run on a GPU, in stages: each its own process with a time limit, its result on disk at once, a table last.

    python3 benchmarks/gpu/first_run.py --kit .gpu --out $OUT --budget 440             # first call
    python3 benchmarks/gpu/first_run.py --kit .gpu --out $OUT --budget 200 --plan again  # after mending

`--kit` holds test_cuda_core (all kernels without torch), wheels/*.whl (scschnet built for cp312 and torch 2.11+cu130
first of all) and qm9.npz.
A stage that fails or is out of time costs only itself. What does not fit into the budget any more is left out.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve()
ROOT = HERE.parents[2]
RESERVE = 12  # seconds for the table and the archive


class Stage(NamedTuple):
    name: str
    limit: int  # seconds
    command: str  # of bash; $PY, $KIT, $OUT, $TMP, $ROOT are set
    needs: str = ""  # stage that must have passed, or with ! must have failed


SITE = Path(tempfile.gettempdir()) / "site"
PYTEST = "cd $ROOT/tests && $PY -m pytest -p no:cacheprovider --timeout=60 --durations=5"
BENCH = "$PY $ROOT/benchmarks/gpu"
SELF = f"$PY {HERE}"
# All four at a time, each of all kernels; logs go into the archive.
SANITIZERS = """
cd $TMP; PATH=$PATH:/usr/local/cuda/bin; tools="memcheck racecheck initcheck synccheck"; rm -f sanitizer.*
for tool in $tools; do
  (compute-sanitizer --tool $tool --error-exitcode 9 --log-file $OUT/logs/$tool.log ./test_cuda_core > sanitizer.$tool 2>&1
  echo $tool $? >> sanitizer.codes) &
done
wait
for tool in $tools; do
  grep -qx "$tool 0" sanitizer.codes || { tail -n 2 sanitizer.$tool; head -c 1200 $OUT/logs/$tool.log; }
done
sort sanitizer.codes | tr '\\n' ' '; echo
[ $(grep -c ' 0$' sanitizer.codes) = 4 ]
"""
FIRST = [
    Stage(
        "machine",
        20,
        "nvidia-smi -L; nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.max.sm,memory.total"
        " --format=csv; which python python3 pip nvcc compute-sanitizer; $PY -V; nvcc --version | tail -2; nproc",
    ),
    Stage(
        "core",
        40,
        "cp $KIT/test_cuda_core $TMP && chmod +x $TMP/test_cuda_core && $TMP/test_cuda_core",
    ),
    Stage("sanitizers", 90, SANITIZERS),
    Stage(
        "install",
        60,
        f"$PY -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target {SITE} $KIT/wheels/*.whl"
        " && cd $TMP && $PY -c 'from scschnet import ops; assert ops._GPU_KERNELS'",
    ),
    Stage(
        "build",
        150,
        f"rm -rf {SITE}/scschnet*; time CUDAARCHS=90 $PY -m pip install -q --no-build-isolation --no-deps"
        f" --no-cache-dir --upgrade --target {SITE} $ROOT",
        "!install",
    ),  # only if the wheel did not work
    Stage("smoke", 60, f"{SELF} --probe smoke"),
    Stage("capture", 60, f"{SELF} --probe capture"),
    Stage("ops", 90, f"{PYTEST} csrc/test_cuda_ops.py"),
    Stage("models", 60, f"{PYTEST} nn/test_cuda_model.py"),
    Stage(
        "training",
        120,
        f"{PYTEST} train/test_cuda_train.py -k 'not wait_for_the_gpu and not capture_that_fails and not two_processes'",
    ),
    Stage("profile-qm9", 40, f"{SELF} --probe profile --case qm9"),
    Stage("profile-aspirin", 40, f"{SELF} --probe profile --case aspirin"),
    Stage("epochs", 60, f"{SELF} --probe epochs"),
    Stage("kernels", 100, f"{BENCH}/bench_kernels.py --out $OUT/kernels.json"),
    Stage("systems", 60, f"{SELF} --probe systems"),
    Stage("no-waiting", 40, f"{PYTEST} train/test_cuda_train.py -k wait_for_the_gpu"),
    Stage("failed-capture", 40, f"{PYTEST} train/test_cuda_train.py -k capture_that_fails"),
]
MEMCHECK = (  # of the operators with torch's memory
    "cd $ROOT/tests && PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck --error-exitcode 9"
    " --log-file $OUT/logs/torch.log $PY -m pytest -p no:cacheprovider -x csrc/test_cuda_ops.py"
    " -k 'double_precision and sizes2 or half_list'"
)
AGAIN = [
    *FIRST[:6],
    Stage(
        "failed before", 90, f"again=$(cat $KIT/again.txt) && {PYTEST} $again"
    ),  # node ids, one line
    Stage("profile-qm9", 40, f"{SELF} --probe profile --case qm9"),
    Stage(
        "two-processes",
        60,
        f"export GLOO_SOCKET_IFNAME=lo; {PYTEST} train/test_cuda_train.py -k two_processes",
    ),
    Stage("memcheck", 60, MEMCHECK),
]


def run(stages: list[Stage], out: Path, kit: Path, budget: float) -> int:
    """Runs the stages; returns how many did not pass."""
    logs = out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    env = os.environ | {
        "PY": sys.executable,
        "KIT": str(kit),
        "OUT": str(out),
        "ROOT": str(ROOT),
        "TMP": tempfile.gettempdir(),
    }
    env |= {
        "PYTHONPATH": f"{SITE}:{env.get('PYTHONPATH', '')}",
        "PYTHONUNBUFFERED": "1",
        "CUDA_MODULE_LOADING": "LAZY",
    }
    end, rows, passed = time.monotonic() + budget - RESERVE, [], set()
    for stage in stages:
        left = end - time.monotonic()
        wanted = stage.needs.lstrip("!")
        blocked = bool(wanted) and ((wanted in passed) == stage.needs.startswith("!"))
        if blocked or left < 8:
            rows.append(
                (stage.name, "left out", 0.0, f"needs {stage.needs}" if blocked else "no time")
            )
            continue
        log, start = logs / f"{len(rows):02d}-{stage.name.replace(' ', '-')}.log", time.monotonic()
        code = run_stage(stage, log, env, min(stage.limit, left))
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        if code == 0 and lines and " skipped" in lines[-1] and " passed" not in lines[-1]:
            code = "skipped"  # pytest is content where there is no GPU
        if code == 0:
            passed.add(stage.name)
        rows.append(
            (
                stage.name,
                "ok" if code == 0 else f"rc {code}",
                time.monotonic() - start,
                lines[-1][:110] if lines else "",
            )
        )
        print(f"== {stage.name}: {rows[-1][1]}, {rows[-1][2]:.0f} s", flush=True)
        (out / "summary.json").write_text(
            json.dumps(
                [dict(zip(("stage", "result", "s", "last"), r, strict=True)) for r in rows],
                indent=1,
            )
        )
        with tarfile.open(out / "logs.tgz.part", "w:gz") as archive:
            archive.add(logs, "logs")
        (out / "logs.tgz.part").rename(out / "logs.tgz")
    show(rows, logs)
    shutil.rmtree(logs, ignore_errors=True)  # at most eight files come back: the archive has them
    return sum(row[1] not in ("ok", "left out") for row in rows)


def run_stage(stage: Stage, log: Path, env: dict[str, str], limit: float) -> int | str:
    """Runs a stage with its output in a file; returns its exit status, or "time"."""
    with log.open("w") as file:
        process = subprocess.Popen(
            ["bash", "-c", stage.command],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=ROOT,
            start_new_session=True,
        )
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return "time"


def show(rows: list[tuple[str, str, float, str]], logs: Path) -> None:
    """Prints the ends of the logs that matter, and last the table of all stages."""
    bad = [r for r in rows if r[1] not in ("ok", "left out")]
    for name, *_ in bad:  # the reply carries the last 12,000 characters
        log = next(logs.glob(f"*-{name.replace(' ', '-')}.log"))
        print(f"\n---- {name}\n" + log.read_text(errors="replace")[-(6000 // len(bad)) :])
    for log in (
        sorted(logs.glob("*profile*.log"))
        + sorted(logs.glob("*epochs.log"))
        + sorted(logs.glob("*systems.log"))
    ):
        print(f"\n---- {log.stem}\n" + log.read_text(errors="replace")[-1300:])
    print()
    for name, result, seconds, last in rows:
        print(f"{name:16}{result:10}{seconds:6.0f} s  {last}")


# ---- what stages run


def smoke() -> None:
    """Every operator of the convolution once: what fails to launch at all."""
    import itertools

    import torch

    from scschnet import ops
    from scschnet.nn.cutoff import CosineCutoff

    device, failed = torch.device("cuda"), 0
    assert ops.runs_on(device), "no kernels for GPUs"
    n, half = 40, 300
    i = torch.randint(0, n, (half,)).sort().values
    row_ptr = torch.searchsorted(i, torch.arange(n + 1)).to(device)
    j = torch.randint(0, n, (half,)).to(device)
    d = (0.4 + 2.0 * torch.rand(half, dtype=torch.float64)).to(device)
    pieces = CosineCutoff(2.8).pieces.to(device)

    def calls(dtype: torch.dtype, n_rows: int, f: int) -> dict[str, Callable[[], object]]:
        bins, weights = ops.spline_weights(d, 2.0**-5, 2.8, pieces, n_rows, 2, dtype)
        p = ops.Pairs(d, bins, weights, row_ptr, j, 2.0**-5, 2.8, pieces)
        x = torch.randn(n, f, device=device, dtype=dtype)
        table = torch.randn(n_rows, f, device=device, dtype=dtype)
        v = d.to(dtype)
        return {
            "cfconv": lambda: ops.cfconv(x, table, p),
            "backward": lambda: ops.cfconv_backward(x, x, table, p),
            "double_backward": lambda: ops.cfconv_double_backward(x, v, x, table, p),
            "table_gradient": lambda: ops.cfconv_table_gradient(x, x, None, p, n_rows, 0),
            "backward_table_gradient": lambda: ops.cfconv_backward_table_gradient(
                x, v, x, x, p, n_rows
            ),
        }

    # Tables around the 48 KB of shared memory that a kernel has without asking, and beyond all of it.
    sizes = (102, 182, 326, 377, 422, 1000, 2000)
    for dtype, n_rows, f in itertools.product((torch.float32, torch.float64), sizes, (64, 37)):
        for name, call in calls(dtype, n_rows, f).items():
            try:
                call()
                torch.cuda.synchronize()
            except RuntimeError as error:
                failed += 1
                reason = str(error).splitlines()[0]
                print(f"{name} {dtype} rows {n_rows} features {f}: {reason}", flush=True)
    print(f"{failed} launches failed")
    sys.exit(min(failed, 99))


def capture(device: str) -> None:
    """A small training: are its steps captured?"""
    import tempfile

    from scschnet.runs.config import TrainConfig
    from scschnet.train.loop import Training
    from scschnet.train.processes import Processes

    for optimizer in ("adam", "muon"):
        with tempfile.TemporaryDirectory() as folder:
            config = TrainConfig(
                out=f"{folder}/run",
                device=device,
                step="resident",
                epochs=3,
                n_train=200,
                optimizer=optimizer,
            )
            training = Training(config, Processes(device), None)
            for _ in range(3):
                training.run_epoch([])
            resident = training.resident
            print(optimizer, resident.describe(), "loss", training.state.loss_sum, flush=True)
            assert resident.captures or device == "cpu", "fell back, see the note above"


def resident_step(case: str, device: str, n_batches: int = 10, **smaller: int) -> tuple[Any, ...]:
    """A step of QM9's or aspirin's size on resident data: its training state, the step, and batches for it.

    Args:
        case: qm9 or aspirin.
        device: cpu or cuda.
        n_batches: of an epoch.
        smaller: options in the place of those of the case.
    """
    import numpy as np
    from systems import labeled, molecules

    from scschnet.data import Split
    from scschnet.runs.config import TrainConfig
    from scschnet.train.captured import ResidentStep
    from scschnet.train.loss import Loss
    from scschnet.train.processes import Processes
    from scschnet.train.setup import build_model
    from scschnet.train.state import TrainingState

    atoms, options = {
        "qm9": (18, {"batch_size": 100, "n_features": 256, "n_rbf": 20, "rho": 1.0}),
        "aspirin": (21, {"batch_size": 50, "n_features": 128, "n_rbf": 50, "rho": 0.1}),
    }[case]
    options |= smaller
    size = options["batch_size"]
    structures = labeled(molecules(n_batches * size, atoms))
    everything = np.arange(len(structures))
    config = TrainConfig(
        step="resident",
        optimizer="adam",
        cutoff=5.0,
        n_train=len(structures),
        device=device,
        ema=0.0,
        clip=5.0,
        output_scale="energy",
        stress_weight=0.0,
        **options,
    )
    state = TrainingState(config, build_model(config, structures, everything).to(device))
    split = Split(everything, everything[:0], everything[:0])
    loss, alone = Loss(config, structures), Processes(device)
    step = ResidentStep(config, state, structures, split, loss, alone, print)
    return state, step, [everything[k : k + size] for k in range(0, len(structures), size)]


def profile(case: str, device: str) -> None:
    """Where the time of a captured step goes, kernel by kernel."""
    import collections

    import torch

    state, step, batches = resident_step(case, device)

    def epoch() -> float:
        state.begin_epoch()
        step.begin_epoch(batches, [5e-4] * len(batches))
        if device != "cpu":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in batches:
            step.run()
        if device != "cpu":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        assert step.read_back() is None
        state.epoch += 1
        return 1e6 * seconds / len(batches)

    times = [epoch() for _ in range(2 if device == "cpu" else 30)]
    kind = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[kind.CPU if device == "cpu" else kind.CUDA]) as found:
        epoch()
    count, total = collections.Counter(), collections.Counter()
    for event in found.events():
        if device == "cpu" or event.device_type == torch.autograd.DeviceType.CUDA:
            us = event.self_cpu_time_total if device == "cpu" else event.time_range.elapsed_us()
            count[event.name[:95]] += 1 / len(batches)
            total[event.name[:95]] += us / len(batches)
    for name, us in total.most_common(60):
        print(f"{us:8.1f} us {count[name]:6.1f} x  {name}")
    for name, us in total.most_common(12):  # once more, for the end of the log
        print(f"{us:8.1f} us {count[name]:6.1f} x  {name[:70]}")
    print(
        f"{case}: {min(times):.0f} us a step (median {sorted(times)[len(times) // 2]:.0f}), {sum(count.values()):.0f} nodes, "
        f"{sum(total.values()):.0f} us in kernels; {step.describe()}"
    )


def epochs(kit: Path, device: str) -> None:
    """QM9 from the file, two cutoffs; how long an epoch takes and its validation."""
    from bench_step import epochs as timed

    n = (
        {}
        if device == "cuda"
        else {"n_train": 300, "n_val": 50, "n_features": 16, "n_interactions": 2}
    )
    within = {"cutoff": 5.0, "rbf_range": 0.0, "cutoff_function": "cosine"}
    for name, options in {"5 A": within, "all pairs": {}}.items():
        print(
            name,
            json.dumps(timed(kit / "qm9.npz", 3, device=device, step="resident", **(n | options))),
            flush=True,
        )


def systems() -> None:
    """Energies and forces of two liquids, and their dynamics."""
    from bench_step import dynamics, evaluation
    from systems import liquid
    from timing import microseconds

    for name, shape in {"12,288": (16, 24, 32), "98,304": (32, 48, 64)}.items():
        evaluate, _, _ = evaluation(liquid(shape))
        print(
            name,
            f"{microseconds(evaluate, repeats=10):.0f} us",
            json.dumps(dynamics(liquid(shape), 100)),
            flush=True,
        )


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--kit", type=Path, default=ROOT / ".gpu")
    parser.add_argument("--budget", type=float, default=440.0)
    parser.add_argument("--plan", choices=("first", "again"), default="first")
    parser.add_argument("--probe", choices=("smoke", "capture", "profile", "epochs", "systems"))
    parser.add_argument("--case", default="qm9")
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    kit = Path(os.environ.get("KIT", given.kit)).resolve()
    if given.probe:
        sys.path[:0] = [str(ROOT / "benchmarks/gpu")]
        {
            "smoke": smoke,
            "capture": lambda: capture(given.device),
            "profile": lambda: profile(given.case, given.device),
            "epochs": lambda: epochs(kit, given.device),
            "systems": systems,
        }[given.probe]()
        return 0
    return run(FIRST if given.plan == "first" else AGAIN, given.out.resolve(), kit, given.budget)


if __name__ == "__main__":
    sys.exit(main())
