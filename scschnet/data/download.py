"""Fetches public sets from their own addresses, only when asked: resumed, checked, then renamed.

A download in progress is .NAME.part beside its target, with the server's version tag next to it;
asking again continues it if the server still has the same version, and starts over if not.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from scschnet.files import rename_durably, replacing

_CHUNK = 1 << 18
_TIMEOUT = 60.0  # seconds without a byte


@dataclass(frozen=True)
class RemoteFile:
    """A file of a public set.

    Args:
        name: what it is called here.
        url: its address.
        sha256: published or independently recorded checksum, or None where none is known.
        note: what to do with it next.
    """

    name: str
    url: str
    sha256: str | None = None
    note: str = ""


MD17_MOLECULES = {
    "aspirin": "aspirin",
    "benzene": "benzene2017",
    "ethanol": "ethanol",
    "malonaldehyde": "malonaldehyde",
    "naphthalene": "naphthalene",
    "salicylic_acid": "salicylic",
    "toluene": "toluene",
    "uracil": "uracil",
}
_MD17 = "http://www.quantum-machine.org/gdml/data/npz/md17_{}.npz"
_FIGSHARE = "https://ndownloader.figshare.com/files/{}"

# Checksums of QM9: TensorFlow Datasets, tensorflow_datasets/datasets/qm9/checksums.tsv.
QM9_FILES = (
    RemoteFile(
        "dsgdb9nsd.xyz.tar.bz2",
        _FIGSHARE.format(3195389),
        "3a63848ac80691bdb8d41834b575afad345b9300d7a2db0c38adb7f6eaa8360c",
        "convert it with --exclude uncharacterized.txt",
    ),
    RemoteFile(
        "uncharacterized.txt",
        _FIGSHARE.format(3195404),
        "3aa5115d540b356de94791d4a74c3bf1ed91c469ecf52a4f5d7cc0506fe02e24",
    ),
)
RMD17_FILES = (
    RemoteFile(
        "rmd17.tar.bz2",
        _FIGSHARE.format(23950376),
        note="unpack it; convert rmd17/npz_data/*.npz with --units 'kcal/mol, Angstrom'",
    ),
)


def remote_files(dataset: str, molecule: str | None = None) -> tuple[RemoteFile, ...]:
    """Files of "md17" (of one molecule), "rmd17" or "qm9".

    Raises:
        ValueError: if the set or molecule is not known, or a molecule is missing or out of place.
    """
    if dataset == "md17":
        if molecule not in MD17_MOLECULES:
            raise ValueError(
                f"`molecule` must be one of {', '.join(MD17_MOLECULES)}, got {molecule!r}"
            )
        published = MD17_MOLECULES[molecule]
        note = "convert it with --units 'kcal/mol, Angstrom'"
        return (RemoteFile(f"md17_{published}.npz", _MD17.format(published), note=note),)
    if molecule is not None:
        raise ValueError(f"`molecule` must be left out for {dataset}, got {molecule!r}")
    files = {"qm9": QM9_FILES, "rmd17": RMD17_FILES}
    if dataset not in files:
        raise ValueError(f"`dataset` must be one of md17, rmd17, qm9, got {dataset!r}")
    return files[dataset]


def fetch(file: RemoteFile, folder: str | os.PathLike[str], progress: bool = True) -> str:
    """Download `file` into `folder`, continuing where an earlier attempt was cut off.

    The checksum is compared where one is known; it is recorded as NAME.sha256 in any case. A file
    that is already there is checked, not fetched again.

    Returns:
        The SHA-256 of the file.

    Raises:
        ValueError: if the checksum differs; the bad file is removed.
        OSError: if the server cannot be reached or breaks off; what came is kept for the next time.
    """
    if not file.url.startswith(("http://", "https://")):
        raise ValueError(f"`url` must begin with http:// or https://, got {file.url!r}")
    target = Path(folder) / file.name
    Path(folder).mkdir(parents=True, exist_ok=True)
    if target.exists():
        return _checked(target, file)
    part = target.with_name(f".{file.name}.part")
    _receive(file.url, part, progress)
    try:
        checksum = _checked(part, file)
    except ValueError:
        part.unlink()
        raise
    finally:
        _tag_path(part).unlink(missing_ok=True)
    with replacing(target.with_name(f"{file.name}.sha256")) as record:
        record.write_text(f"{checksum}  {file.name}\n", encoding="utf-8")
    rename_durably(part, target)
    return checksum


def _receive(url: str, part: Path, progress: bool) -> None:
    """Append to `part` what is missing; it is whole when this returns."""
    request = urllib.request.Request(url, headers={"User-Agent": "scschnet"})
    have, tag = _resumable(part)
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", tag)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            _append(response, part, have if response.status == 206 else 0, progress)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # the part has everything already, or the file has become shorter
            part.unlink()
            return _receive(url, part, progress)
        raise OSError(f"{url} must be there, got HTTP {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise OSError(f"{url} must be reachable, got {error.reason}") from None
    except (ConnectionError, TimeoutError) as error:  # while it answers
        raise OSError(f"{url} must be reachable, got {error}; ask again to continue") from None
    except http.client.HTTPException as error:
        raise OSError(f"{url} must send a whole answer, got {error!r}; ask again") from None
    except OSError as error:
        if error.errno is None:  # a sentence of `_append`
            raise
        raise OSError(error.errno, f"cannot write {part}: {error.strerror}") from error


def _append(response: http.client.HTTPResponse, part: Path, start: int, progress: bool) -> None:
    expected = _expected_size(response, start)
    tag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
    _tag_path(part).write_text("" if tag.startswith("W/") else tag, encoding="utf-8")
    bar = tqdm(
        total=expected,
        initial=start,
        unit="B",
        unit_scale=True,
        desc=part.name.removeprefix(".").removesuffix(".part"),
        disable=not progress,
    )
    with part.open("ab" if start else "wb") as out, bar:
        while chunk := response.read(_CHUNK):
            out.write(chunk)
            bar.update(len(chunk))
        size = out.tell()
    if expected is not None and size != expected:
        raise OSError(
            f"{response.url} must send {expected} bytes, got {size} before the connection ended; "
            "ask again to continue from there"
        )


def _expected_size(response: http.client.HTTPResponse, start: int) -> int | None:
    if response.status == 206:
        span = response.headers.get("Content-Range", "")
        if not span.startswith(f"bytes {start}-"):
            raise OSError(f"{response.url} must continue at byte {start}, got {span!r}")
        total = span.rpartition("/")[2]
        return int(total) if total.isdecimal() else None
    length = response.headers.get("Content-Length")
    return int(length) if length is not None else None


def _resumable(part: Path) -> tuple[int, str]:
    """Bytes already here and the server's tag of that version; 0 bytes where there is no tag."""
    tag_path = _tag_path(part)
    if not part.exists() or not tag_path.exists():
        return 0, ""
    tag = tag_path.read_text(encoding="utf-8").strip()
    return (part.stat().st_size, tag) if tag else (0, "")


def _tag_path(part: Path) -> Path:
    return part.with_name(part.name + ".tag")


def _checked(path: Path, file: RemoteFile) -> str:
    with path.open("rb") as content:
        checksum = hashlib.file_digest(content, "sha256").hexdigest()
    if file.sha256 is not None and checksum != file.sha256:
        raise ValueError(f"{file.name} must have SHA-256 {file.sha256}, got {checksum}")
    return checksum
