"""One package looked up by its hash, all of one moment, for less than a lookup of many takes: see `Database.look`."""

from __future__ import annotations

import sqlite3
from collections.abc import Container
from typing import Any, Final

from whiteboard.errors import CorruptPackageError
from whiteboard.records.packages import Page
from whiteboard.storage.page import one_row
from whiteboard.storage.page.format import Moved
from whiteboard.storage.sql import page_row
from whiteboard.storage.sqlite import recent_index
from whiteboard.storage.sqlite.connection import VERSION, Held
from whiteboard.storage.sqlite.opened_data import InRow, is_damage, reading
from whiteboard.storage.sqlite.rows import AS_COLUMN, LARGE

_PLACE = "SELECT page_id, slot FROM package WHERE hash = ?"
_PAGE = f"SELECT header, digest, {AS_COLUMN} FROM page WHERE id = ?"
_RECENT_PAGE = "SELECT header, digest FROM recent JOIN page ON id = page_id WHERE page_id = ?"
_PLACED_PAGE = (
    f"SELECT page_id, slot, header, digest, {AS_COLUMN} FROM package LEFT JOIN page ON id = page_id WHERE hash = ?"
)

_blobopen: Final[Any] = sqlite3.Connection.blobopen
"""Without a call of a function that counts them."""


def place_of(cursor: Any, hashed: int) -> tuple[Any, Any] | None:
    """The page and slot that the index has of a hash, as they lie there; None is a certain miss."""
    found: tuple[Any, Any] | None = cursor.execute(_PLACE, (hashed,)).fetchone()
    return found or recent_index.place_of(cursor, hashed)


def look(raw: Held, hashed: int, seen: Container[int] | None) -> tuple[int, Page] | bool:
    """As `Database.look`, all of one moment; the connection is to be settled behind it."""
    alone, seen = seen is None, seen or ()
    try:
        page = None
        version, place = recent_index.kept(raw, hashed)
        if place is not None:
            page_id, slot = place
            if page_id not in seen and (page := _read_lately(raw, page_id, slot, alone=alone)) is not None:
                return page_id, page
            version = None
        moment, cursor = raw.looking()
        # Until its row is fetched, all that is read is of one moment: to begin and end a transaction takes longer.
        moment.execute(VERSION)
        found = cursor.execute(_PLACED_PAGE, (hashed,)).fetchone()
        is_last = found is not None  # of one hash there is one row, so nothing is left to come
        if found is None:
            if version is not None:
                (others,) = moment.fetchone()
                if version == (others, raw.total_changes):
                    raw.looks = False
                    return True
                moment.execute(VERSION)
                place = place_of(cursor, hashed)  # of this moment, in which it may have got a row
            else:
                place = recent_index.place_of(cursor, hashed)
            if place is None:
                return True
            found = *place, *(cursor.execute(_PAGE, place[:1]).fetchone() or (None, None, None))
        page_id, slot, header, digest, data = found
        if data is None and type(page_id) is type(slot) is int and type(header) is bytes and page_id not in seen:
            raw.blobs += 1
            with _blobopen(raw, "page", "data", page_id, readonly=True) as blob:
                page = one_row.quick(header, digest, blob, slot)
        if page is None:
            page = _read(raw, found, seen, alone=alone)
        if is_last:
            moment.fetchone()
            raw.looks = False
    except CorruptPackageError:
        return False
    except sqlite3.Error as error:
        if isinstance(error, sqlite3.DataError) or is_damage(error):  # the first: a header that is larger than any
            return False
        raise
    return False if page is None else (page_id, page)


def _read_lately(raw: Held, page_id: int, slot: int, *, alone: bool) -> Page | None:
    """The package in a slot of a page, if that is still one written lately: then all that it had is indexed."""
    _, cursor = raw.looking()
    raw.blobs += 1
    try:
        with _blobopen(raw, "page", "data", page_id, readonly=True) as blob:
            # As long as it is open all is of one moment, which takes no statement of its own.
            header, digest = cursor.execute(_RECENT_PAGE, (page_id,)).fetchone() or (None, None)
            if not type(header) is type(digest) is bytes:
                return None
            page = one_row.quick(header, digest, blob, slot)
            if page is None and len(blob) != page_row.MOST_DATA:
                data = blob[:] if len(blob) < LARGE else InRow(blob)
                page = one_row.read(Moved(header, digest, data), slot, alone=alone)
    except sqlite3.Error as error:
        if not is_damage(error):  # as where there is no such page any more
            raise
        return None
    raw.looks = False
    return page


def _read(raw: Held, found: Any, seen: Container[int], *, alone: bool) -> Page | None:
    """The package in a slot of a page, given as they were found; None where a lookup has to tell."""
    page_id, slot, header, digest, data = found
    if not type(page_id) is type(slot) is int or not type(header) is type(digest) is bytes:
        return None
    if type(data) is bytes:
        return None if page_id in seen else one_row.read(Moved(header, digest, data), slot, alone=alone)
    if data is not None:
        return None
    with raw.blobopen("page", "data", page_id, readonly=True) as blob:
        if len(blob) != page_row.MOST_DATA:
            return one_row.read(Moved(header, digest, blob), slot, seen=page_id in seen, alone=alone)
        with reading(raw, "page", page_id) as parts:
            return one_row.read(Moved(header, digest, parts), slot, seen=page_id in seen, alone=alone)
