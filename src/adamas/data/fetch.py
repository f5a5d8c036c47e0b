"""Where published files are: in the user's directory, or downloaded into the cache and checked by md5."""

from __future__ import annotations

import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from adamas.errors import AdamasError


@dataclass(frozen=True)
class Published:
    """A file on the web, its md5, its folder below the cache, and the folder that an archive unpacks to."""

    url: str
    md5: str
    folder: str = "."
    unpacks: str = ""


def cache() -> Path:
    """The directory of downloads: the environment variable ADAMAS_CACHE, or the usual place of this system."""
    import pooch

    return Path(os.environ.get("ADAMAS_CACHE") or pooch.os_cache("adamas"))


def directory(data_dir: Path | None, published: Iterable[Published]) -> Path:
    """The user's directory, or the cache once it holds the published files, laid out as torchvision does.

    Errors: `data_dir` is no directory; no network; a wrong checksum; an archive with paths outside itself.
    """
    if data_dir is None:
        for file in published:
            _download(file, cache())
        return cache()
    if not os.path.isdir(data_dir):
        raise AdamasError(f"expected --data-dir to be a directory, got {str(data_dir)!r}; create it or correct the path")
    return data_dir


def find(root: Path, places: Iterable[str], what: str) -> Path:
    """The first of `places` below `root` that is a file; the error names all that were tried."""
    tried = [root / place for place in places]
    for path in tried:
        if os.path.isfile(path):
            return path
    raise AdamasError(
        f"expected {what}, found none of {', '.join(map(str, tried))}; "
        "put the file at one of these paths, correct --data-dir, or leave --data-dir out to download the published files"
    )


def _download(file: Published, root: Path) -> None:
    if file.unpacks and os.path.isdir(root / file.unpacks):
        return
    path = _retrieved(file, root / file.folder)
    if file.unpacks:
        _unpack(path, file.unpacks, root)
        path.unlink(missing_ok=True)


def _retrieved(file: Published, folder: Path) -> Path:
    """The file in `folder`, downloaded unless it is there with the right md5; it takes its name only once it is whole."""
    import pooch

    name = file.url.rsplit("/", 1)[-1]
    try:
        return Path(pooch.retrieve(file.url, known_hash=f"md5:{file.md5}", fname=name, path=folder))
    except ValueError as error:
        raise AdamasError(
            f"expected {file.url} to have md5 {file.md5}, got other content, and removed it; "
            "try again, or give a directory that holds the file as --data-dir"
        ) from error
    except OSError as error:  # includes every error of the network
        raise AdamasError(
            f"expected to download {file.url} into {folder}, got {type(error).__name__}; "
            "connect to the network, or give a directory that holds the file as --data-dir"
        ) from error


def _unpack(archive: Path, folder: str, root: Path) -> None:
    """Unpack beside the destination and rename, so that `root / folder` is whole or absent."""
    try:
        with tempfile.TemporaryDirectory(dir=root) as scratch:
            with tarfile.open(archive) as tar:
                tar.extractall(scratch, filter="data")
            os.rename(Path(scratch) / folder, root / folder)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        if os.path.isdir(root / folder):  # another process was faster
            return
        raise AdamasError(
            f"expected {archive} to unpack to {folder}, got {type(error).__name__}; "
            "remove the file and try again, or give a directory that holds the data as --data-dir"
        ) from error
