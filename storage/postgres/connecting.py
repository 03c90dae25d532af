"""Connections to a server: all of libpq's options, binary rows, whole numbers, and arrays of NumPy's as they lie."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format
from psycopg.types.numeric import NumericBinaryLoader, NumericLoader

from whiteboard.errors import StoreError
from whiteboard.storage.sql.location import Location

# It tells of each connection that ends, which is an error of the store, or none, as it is begun again.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

SCHEMA: Final = "whiteboard"
"""The schema of a store whose URL names none."""

_DEFAULTS: Final = {
    "application_name": "whiteboard",
    "connect_timeout": "10",
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
# The server's side: a session whose client has vanished ends, and with it what it holds.
_SETTINGS: Final = "-ctcp_keepalives_idle=30 -ctcp_keepalives_interval=10 -ctcp_keepalives_count=3"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_HEAD = np.array([1, 0, 20, 0, 1], ">i4")
_ARRAY: Final = 1016  # int8[]
_ITEM = np.dtype([("length", ">i4"), ("value", ">i8")])


def schema_of(location: Location) -> str:
    """The schema that a URL names.

    Raises
    ------
    StoreError
    """
    assert location.server is not None
    name = location.server.query.get("schema", SCHEMA)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        message = f"cannot open the store {location}: schema={name!r} is no name: letters, digits and _, 63 at most"
        raise StoreError(message)
    return name


def connect(location: Location) -> psycopg.Connection[Any]:
    """Open a connection, in no transaction; whoever uses it says BEGIN."""
    url = location.server
    assert url is not None
    given = {name: ",".join(value) if isinstance(value, tuple) else value for name, value in url.query.items()}
    schema = schema_of(location)
    given.pop("schema", None)
    options = f'{_SETTINGS} -csearch_path="{schema}" {given.pop("options", "")}'
    parts = url.translate_connect_args(username="user", database="dbname")
    made = psycopg.connect(
        autocommit=True,
        cursor_factory=_Binary,
        client_encoding="utf8",
        options=options.strip(),
        **{**_DEFAULTS, **given, **parts},
    )
    made.adapters.register_loader("numeric", _Whole)
    made.adapters.register_loader("numeric", _WholeBinary)
    made.adapters.register_loader(_ARRAY, _NumbersLoader)
    made.adapters.register_dumper(Numbers, _NumbersDumper)
    return made


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """An array of int64, shape (n,), as a value of a statement."""

    values: NDArray[np.int64]


class _NumbersDumper(Dumper):
    format = Format.BINARY
    oid = _ARRAY

    def dump(self, obj: Numbers) -> bytes:
        head, items = _HEAD.copy(), np.empty(len(obj.values), _ITEM)
        head[3] = len(items)
        items["length"], items["value"] = 8, obj.values
        return head.tobytes() + items.tobytes()


class _NumbersLoader(Loader):
    """An array of whole numbers without NULL as one of NumPy's."""

    format = Format.BINARY

    def load(self, data: Any) -> NDArray[np.int64]:
        return np.frombuffer(bytes(data), _ITEM, offset=_HEAD.nbytes)["value"].astype(np.int64)


class _Binary(psycopg.Cursor[Any]):
    """Rows come as bytes, not as text: half as many of a page's data."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.format = Format.BINARY


class _Whole(NumericLoader):
    """Sums of whole numbers are whole."""

    def load(self, data: Any) -> Any:
        return _whole(super().load(data))


class _WholeBinary(NumericBinaryLoader):
    def load(self, data: Any) -> Any:
        return _whole(super().load(data))


def _whole(value: Decimal) -> int | Decimal:
    return int(value) if value == value.to_integral_value() else value
