"""Downloads from a local server: whole, interrupted and resumed, changed on the server, corrupt."""

import hashlib
import resource
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from scschnet.data.download import MD17_MOLECULES, RemoteFile, fetch, remote_files

CONTENT = np.random.default_rng(0).bytes(1_500_000)
CHECKSUM = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves one content at every path; breaks off after `break_at` bytes of each answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.tag, self.break_at = CONTENT, '"one"', None
        self.ranges = True
        self.status: int | None = None
        self.requested: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        span = self.headers.get("Range")
        self.server.requested.append((self.path, span))
        if self.server.status is not None:
            self.send_error(self.server.status)
            return
        content, start = self.server.content, 0
        if span and self.server.ranges and self.headers.get("If-Range") == self.server.tag:
            start = int(span.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if self.server.tag:
            self.send_header("ETag", self.server.tag)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = None if self.server.break_at is None else start + self.server.break_at
        self.wfile.write(content[start:stop])

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_whole_file_with_its_checksum_recorded(tmp_path, server, capfd):
    folder = tmp_path / "new"
    assert fetch(RemoteFile("a.bin", f"{server.url}/a.bin"), folder) == CHECKSUM
    assert (folder / "a.bin").read_bytes() == CONTENT
    assert (folder / "a.bin.sha256").read_text() == f"{CHECKSUM}  a.bin\n"
    assert names(folder) == ["a.bin", "a.bin.sha256"]
    out, err = capfd.readouterr()
    assert out == "" and "a.bin: 100%" in err


def test_interrupted_download_continues_where_it_broke_off(tmp_path, server):
    file = RemoteFile("a.bin", f"{server.url}/a.bin", CHECKSUM)
    server.break_at = 600_000
    with pytest.raises(OSError, match="must send 1500000 bytes, got 600000 before the connection"):
        fetch(file, tmp_path, progress=False)
    assert "a.bin" not in names(tmp_path)
    with pytest.raises(OSError, match="got 1200000"):
        fetch(file, tmp_path, progress=False)
    server.break_at = None
    assert fetch(file, tmp_path, progress=False) == CHECKSUM
    assert [span for _, span in server.requested] == [None, "bytes=600000-", "bytes=1200000-"]
    assert names(tmp_path) == ["a.bin", "a.bin.sha256"]


@pytest.mark.parametrize("case", ["changed", "no ranges", "no tag"])
def test_starts_over_where_it_cannot_continue(tmp_path, server, case):
    """A file that changed on the server is never joined to the beginning of the old one."""
    file = RemoteFile("a.bin", f"{server.url}/a.bin")
    server.break_at = 600_000
    server.tag = "" if case == "no tag" else '"one"'
    with pytest.raises(OSError, match="got 600000"):
        fetch(file, tmp_path, progress=False)
    server.break_at = None
    server.ranges = case != "no ranges"
    if case == "changed":
        server.content, server.tag = CONTENT[::-1], '"two"'
    assert fetch(file, tmp_path, progress=False) == hashlib.sha256(server.content).hexdigest()
    assert (tmp_path / "a.bin").read_bytes() == server.content


def test_part_that_was_complete_already(tmp_path, server):
    (tmp_path / ".a.bin.part").write_bytes(CONTENT)
    (tmp_path / ".a.bin.part.tag").write_text('"one"')
    file = RemoteFile("a.bin", f"{server.url}/a.bin", CHECKSUM)
    assert fetch(file, tmp_path, progress=False) == CHECKSUM
    assert names(tmp_path) == ["a.bin", "a.bin.sha256"]


def test_wrong_checksum_leaves_nothing(tmp_path, server):
    file = RemoteFile("a.bin", f"{server.url}/a.bin", "0" * 64)
    with pytest.raises(ValueError, match=f"must have SHA-256 {'0' * 64}, got {CHECKSUM}"):
        fetch(file, tmp_path, progress=False)
    assert names(tmp_path) == []


def test_file_that_is_there_is_checked_not_fetched(tmp_path, server):
    (tmp_path / "a.bin").write_bytes(CONTENT)
    assert fetch(RemoteFile("a.bin", f"{server.url}/a.bin", CHECKSUM), tmp_path) == CHECKSUM
    with pytest.raises(ValueError, match="must have SHA-256"):
        fetch(RemoteFile("a.bin", f"{server.url}/a.bin", "1" * 64), tmp_path)
    assert server.requested == [] and (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("status", [404, 403, 500])
def test_server_says_no(tmp_path, server, status):
    server.status = status
    with pytest.raises(OSError, match=f"must be there, got HTTP {status}"):
        fetch(RemoteFile("a.bin", f"{server.url}/a.bin"), tmp_path, progress=False)


def test_server_is_not_there(tmp_path, server):
    url = server.url
    server.server_close()
    with pytest.raises(OSError, match="must be reachable"):
        fetch(RemoteFile("a.bin", f"{url}/a.bin"), tmp_path, progress=False)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://host/a", "a.bin"])
def test_addresses_of_other_kinds(tmp_path, url):
    with pytest.raises(ValueError, match="`url` must begin with http:// or https://, got"):
        fetch(RemoteFile("a.bin", url), tmp_path)


def test_known_sets():
    assert [file.name for file in remote_files("qm9")] == [
        "dsgdb9nsd.xyz.tar.bz2",
        "uncharacterized.txt",
    ]
    assert all(len(file.sha256) == 64 for file in remote_files("qm9"))
    for molecule in MD17_MOLECULES:
        (file,) = remote_files("md17", molecule)
        assert file.url.endswith(f"/{file.name}") and file.sha256 is None
    assert remote_files("md17", "benzene")[0].name == "md17_benzene2017.npz"
    assert remote_files("rmd17")[0].name == "rmd17.tar.bz2"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("md17", None), "`molecule` must be one of aspirin, benzene, ethanol"),
        (("md17", "water"), "got 'water'"),
        (("qm9", "ethanol"), "`molecule` must be left out for qm9, got 'ethanol'"),
        (("qm8", None), "`dataset` must be one of md17, rmd17, qm9, got 'qm8'"),
    ],
)
def test_sets_that_are_not_known(arguments, message):
    with pytest.raises(ValueError) as caught:
        remote_files(*arguments)
    assert message in str(caught.value)


def test_a_disk_without_room_is_no_fault_of_the_server(tmp_path, server):
    """A limit of the process does what a full disk does; what came is kept."""
    file = RemoteFile("a.bin", f"{server.url}/a.bin", CHECKSUM)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"cannot write .*\.a\.bin\.part: File too large$"):
            fetch(file, tmp_path, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / ".a.bin.part").read_bytes() == CONTENT[:600_000]
    assert fetch(file, tmp_path, progress=False) == CHECKSUM
