"""Where a store is, read from a path or URL: nothing is opened, on disk or on the network."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from whiteboard.errors import ParamError, StoreError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

StoreUrl: TypeAlias = "str | os.PathLike[str]"

_FILE: Final = "sqlite:///"


@dataclass(frozen=True, slots=True)
class Location:
    """A store's backend, and its file or server.

    Attributes
    ----------
    backend : str
    path : Path or None
        Absolute, its folder resolved; None for ``:memory:`` and for a server.
    server : URL or None
        With its password, which is never shown.
    """

    backend: str
    path: Path | None
    server: URL | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the store, without a password."""
        if self.server is not None:
            return self.server.set(password=None).render_as_string()
        return f"{self.backend}://" if self.path is None else f"{self.backend}:///{self.path}"

    def __str__(self) -> str:
        if self.server is not None:
            return self.url
        return ":memory:" if self.path is None else str(self.path)


def locate(url: StoreUrl) -> Location:
    """Read a path, ``":memory:"`` or an SQLAlchemy URL; nothing on disk is touched.

    Raises
    ------
    StoreError
        The URL cannot be read, has query keys, or names no path.
    ParamError
        It is no text and no path.
    """
    given: Any = url
    text = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(text, str):
        message = f"url: expected the path of a file, ':memory:' or a URL, as text or a pathlib.Path, got {url!r}"
        raise ParamError(message)
    if "://" not in text:
        return Location("sqlite", _absolute(text))
    if text.startswith(_FILE) and "?" not in text:  # as it is read below, without SQLAlchemy
        return Location("sqlite", _absolute(text.removeprefix(_FILE) or ":memory:"))
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(text)
        backend = parsed.get_backend_name()
    except (ArgumentError, ValueError) as error:
        shown = repr(text) if "@" not in text else "with an @ in it"  # before which a password may stand
        message = f"cannot read the store URL {shown}: expected sqlite:///PATH or postgresql://USER@HOST/DATABASE"
        raise StoreError(message) from error
    if backend == "postgresql":
        return Location(backend, None, parsed)
    if parsed.query:
        message = (
            f"unknown query keys {sorted(parsed.query)} in the store URL {text!r}: options are arguments of open()"
        )
        raise StoreError(message)
    if backend != "sqlite":
        return Location(backend, None)
    if parsed.host or parsed.username or parsed.drivername not in ("sqlite", "sqlite+pysqlite"):
        message = (
            f"cannot read the store URL {text!r}: expected sqlite:///PATH, with three slashes and no driver or host"
        )
        raise StoreError(message)
    return Location(backend, _absolute(parsed.database or ":memory:"))


def locate_lasting(url: StoreUrl) -> Location:
    """Read the path or URL of a store that outlives the process.

    Raises
    ------
    StoreError
        It is ``":memory:"``, or cannot be read.
    """
    location = locate(url)
    if location.path is None and location.server is None:
        message = f"{os.fspath(url)!r} is no file: name one by its path, or as sqlite:///PATH"
        raise StoreError(message)
    return location


def _absolute(text: str) -> Path | None:
    if text == ":memory:":
        return None
    if not text or "\x00" in text or text.endswith(os.sep):
        message = f"{text!r} does not name a store: expected the path of a file, or ':memory:'"
        raise StoreError(message)
    path = Path(text)
    try:
        # An existing link is followed once, here, so that two names of one file share its WAL and its lock file.
        found = path.resolve() if path.is_file() else path.parent.resolve() / path.name
        str(found).encode()  # SQLite's names are UTF-8
    except OSError as error:
        message = f"cannot open the store {text}: {error.strerror}; look at the path's length and permissions"
        raise StoreError(message) from error
    except UnicodeEncodeError as error:
        message = f"cannot open the store {text!r}: its path is no text in UTF-8; name another path"
        raise StoreError(message) from error
    return found
