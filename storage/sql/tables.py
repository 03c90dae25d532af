"""The tables of a store: what the values of their columns are, for whoever reads rows that others may have written.

`metadata` says the same to Alembic, with keys and indexes; a test compares them.
"""

from __future__ import annotations

from typing import Final

from whiteboard.storage.page.row_checks import Table

APPLICATION_ID: Final = 0x57424F44
"""SQLite's ``application_id`` of every store: the bytes ``WBOD``."""

FORMAT: Final = 3
"""SQLite's ``user_version``: the newest format of the page blobs that are in it. Those of format 1, of before BLAKE3,
and of format 2, in which no rows lie beside one another, are read as they are; a file that had only those is of this
one once it was opened for writing."""

VERSION_TABLE: Final = "whiteboard_alembic_version"

HEAD_TRIGGER_NAME: Final = "system_head"

page: Final = Table("page", id=int, op=str, n=int, nbytes=int, cost_ns=int, header=bytes, digest=bytes, data=bytes)
page_part: Final = Table("page_part", id=int, page_id=int, number=int, data=bytes)
package: Final = Table("package", hash=int, page_id=int, slot=int)
recent: Final = Table("recent", page_id=int, hashes=bytes)
gathered: Final = Table("gathered", id=int, page_id=int, hashes=bytes, places=bytes)
known: Final = Table("known", part=int, packages=int, bits=bytes)
page_access: Final = Table("page_access", page_id=int, last_use=int, hits=int)
eviction: Final = Table("eviction", reason=str, pages=int, packages=int, nbytes=int, last=int)
system: Final = Table(
    "system",
    id=int,
    name=str,
    uuid=str,
    spec=str | None,
    origin_id=int | None,
    origin_number=int | None,
    head=int | None,
)
writer: Final = Table("writer", name=str, token=str, host=str, boot=str, pid=int, started=int)
claim: Final = Table("claim", id=int, boot=str, pid=int, started=int, cost_ns=int | None, hashes=bytes)
commit_log: Final = Table(
    "commit_log",
    id=int,
    system_id=int,
    number=int,
    parent=int | None,
    changed=int,
    stress=float | None,
    residual_norm=float | None,
    digest=str,
    rows=int,
    keyframe=int,
    seal=bytes,
)
node_page: Final = Table(
    "node_page", id=int, system_id=int, number=int, part=int, header=bytes, digest=bytes, data=bytes
)

TABLES: Final = (
    page,
    page_part,
    package,
    recent,
    gathered,
    known,
    page_access,
    eviction,
    system,
    writer,
    claim,
    commit_log,
    node_page,
)
