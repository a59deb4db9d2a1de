"""Which PyTorch the extension is compiled against.

The same search serves two callers:

* scikit-build-core's metadata provider: torch is asked for in the build environment only when the
  target interpreter has none, and the wheel requires the minor version it was compiled with;
* FindTorchLite.cmake, which runs this file and reads torch's directory from its output.
"""

import importlib.util
import os
import re
import site
import sys
import sysconfig
from pathlib import Path

TORCH_WHEN_ABSENT = "2.13.0"
RUNTIME_DEPENDENCIES = [
    "numpy>=1.26",
    "ase>=3.23",
    "h5py>=3.10",
    "matplotlib>=3.8",
    "tqdm>=4.66",
    "tyro>=0.9.20",
    "tomli-w>=1.0",
]


def find_torch() -> Path | None:
    """Directory of the torch package of the target interpreter, or None."""
    if os.environ.get("SCSCHNET_TORCH_DIR"):
        return Path(os.environ["SCSCHNET_TORCH_DIR"])
    places: list[str] = []
    spec = importlib.util.find_spec("torch")  # importable: no isolation, or a build requirement
    if spec and spec.submodule_search_locations:
        places += list(spec.submodule_search_locations)
    # pip's build isolation hides site-packages from sys.path but runs the same executable, so
    # sysconfig still names the target; `build` and uv isolate with a venv but leave these variables.
    places += [os.path.join(sysconfig.get_path(key), "torch") for key in ("platlib", "purelib")]
    if site.ENABLE_USER_SITE:
        places.append(os.path.join(site.getusersitepackages(), "torch"))
    python = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if os.environ.get(variable):
            places.append(
                os.path.join(os.environ[variable], "lib", python, "site-packages", "torch")
            )
    for place in map(Path, places):
        if (place / "version.py").is_file() and (place / "lib" / "libtorch_cpu.so").is_file():
            return place
    return None


def torch_version(directory: Path) -> str:
    """Version of the torch package in `directory`, for example 2.13.0+cpu."""
    match = re.search(r"__version__ = '([^']+)'", (directory / "version.py").read_text())
    if match is None:
        raise RuntimeError(f"no version in {directory / 'version.py'}")
    return match.group(1)


def get_requires_for_dynamic_metadata(_settings: object = None) -> list[str]:
    """What the build environment needs beyond the static list."""
    return [] if find_torch() else [f"torch=={TORCH_WHEN_ABSENT}"]


def dynamic_metadata(field: str, _settings: object = None) -> list[str]:
    """Value of a metadata field that pyproject.toml leaves to this provider."""
    if field != "dependencies":
        raise ValueError(f"this provider knows `dependencies` only, got {field!r}")
    directory = find_torch()
    version = torch_version(directory) if directory else TORCH_WHEN_ABSENT
    major, minor = version.split("+")[0].split(".")[:2]
    return [*RUNTIME_DEPENDENCIES, f"torch=={major}.{minor}.*"]


if __name__ == "__main__":
    found = find_torch()
    if found is None:
        sys.exit(1)
    print(found)
