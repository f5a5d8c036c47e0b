from __future__ import annotations

import gzip
import hashlib
import io
import socket
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from adamas.data.fetch import Published, cache, directory, find
from adamas.errors import AdamasError


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web(tmp_path, monkeypatch):
    """A function that puts a file on a local server and returns what is published: (name, content, **fields)."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("ADAMAS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "web"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def publish(name: str, content: bytes, **fields: str) -> Published:
        (folder / name).write_bytes(content)
        url = f"http://127.0.0.1:{server.server_port}/{name}"
        return Published(url=url, **{"md5": hashlib.md5(content).hexdigest()} | fields)

    yield publish
    server.shutdown()
    thread.join()
    server.server_close()


def archive(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name.replace("__", "/"))
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(out.getvalue(), mtime=0)  # the same name for a test in every process


def contents(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_is_downloaded_once_into_its_folder(web, tmp_path):
    file = web("a.gz", b"hello", folder="MNIST/raw")
    assert directory(None, [file]) == cache() == tmp_path / "cache"
    assert (cache() / "MNIST/raw/a.gz").read_bytes() == b"hello"
    (tmp_path / "web" / "a.gz").unlink()
    directory(None, [file])  # no longer on the web, nor needed there


def test_a_file_in_the_cache_that_has_changed_is_downloaded_again(web):
    file = web("a.gz", b"hello")
    directory(None, [file])
    (cache() / "a.gz").write_bytes(b"hallo")
    directory(None, [file])
    assert (cache() / "a.gz").read_bytes() == b"hello"


def test_a_wrong_checksum_leaves_nothing_behind(web):
    file = web("a.gz", b"hello", md5="0" * 32)
    with pytest.raises(
        AdamasError, match=f"^expected {file.url} to have md5 {'0' * 32}, got other content, and removed it; .*--data-dir$"
    ):
        directory(None, [file])
    assert contents(cache()) == []


def test_a_file_that_is_gone_from_the_web(web, tmp_path):
    file = web("a.gz", b"hello")
    (tmp_path / "web" / "a.gz").unlink()
    with pytest.raises(
        AdamasError, match=r"^expected to download http.*a.gz into .*cache, got HTTPError; connect .*--data-dir$"
    ):
        directory(None, [file])
    assert contents(cache()) == []


def test_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("ADAMAS_CACHE", str(tmp_path / "cache"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/a.gz"
        with pytest.raises(
            AdamasError, match=f"^expected to download {url} into .*, got ConnectionError; connect to the network, or"
        ):
            directory(None, [Published(url, "0" * 32)])
    assert contents(tmp_path / "cache") == []


def test_a_cache_that_cannot_be_written(web, tmp_path):
    (tmp_path / "cache").write_bytes(b"a file")
    with pytest.raises(
        AdamasError, match=r"^expected to download .*, got (FileExistsError|NotADirectoryError|PermissionError);"
    ):
        directory(None, [web("a.gz", b"hello")])


def test_an_archive_is_unpacked_once_and_dropped(web, tmp_path):
    file = web("a.tar.gz", archive(inner__x=b"1", inner__y=b"2"), unpacks="inner")
    for _ in range(2):
        directory(None, [file])
        assert contents(cache()) == ["inner", "inner/x", "inner/y"]
        (tmp_path / "web" / "a.tar.gz").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (archive(**{"..__..__evil": b"1"}), "OutsideDestinationError"),
        (archive(**{"inner__..__..__..__evil": b"1"}), "OutsideDestinationError"),
        (archive(other__x=b"1"), "FileNotFoundError"),
        (archive(inner__x=b"1" * 5000)[:-20], "(EOF|Read)Error"),
        (b"no archive", "ReadError"),
    ],
)
def test_a_bad_archive_leaves_nothing_outside(web, tmp_path, content, got):
    file = web("a.tar.gz", content, unpacks="inner")
    with pytest.raises(
        AdamasError, match=rf"^expected .*a\.tar\.gz to unpack to inner, got {got}; remove the file .*--data-dir$"
    ):
        directory(None, [file])
    assert contents(cache()) == ["a.tar.gz"] and contents(tmp_path / "web") == ["a.tar.gz"] and not (tmp_path / "evil").exists()


def test_the_cache_has_a_usual_place(monkeypatch):
    monkeypatch.delenv("ADAMAS_CACHE", raising=False)
    assert cache().name == "adamas"


def test_the_users_directory_is_used_as_it_is(tmp_path):
    assert directory(tmp_path, [Published("http://nowhere.invalid/a", "0" * 32)]) == tmp_path
    missing = tmp_path / "nowhere"
    with pytest.raises(
        AdamasError, match=f"^expected --data-dir to be a directory, got '{missing}'; create it or correct the path$"
    ):
        directory(missing, [])


def test_find_takes_the_first_file_and_names_what_it_tried(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_bytes(b"")
    (tmp_path / "c").write_bytes(b"")
    assert find(tmp_path, ["a", "b", "c"], "a file") == tmp_path / "b"
    with pytest.raises(
        AdamasError, match=f"^expected a file, found none of {tmp_path}/a, {tmp_path}/d; put the file at one of"
    ):
        find(tmp_path, ["a", "d"], "a file")
