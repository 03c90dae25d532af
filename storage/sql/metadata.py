"""The schema as SQLAlchemy tables: the one place that says what a migration has to arrive at.

Package pages and node pages are two tables, so that nothing which evicts packages can reach a node version. For Alembic
and for tests: what reads and writes a store at head goes by `tables`, and imports no SQLAlchemy.
"""

from __future__ import annotations

from sqlalchemy import (
    DDL,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    event,
)

from whiteboard.storage.sql.tables import HEAD_TRIGGER_NAME

metadata = MetaData()

Whole = BigInteger().with_variant(Integer, "sqlite")
"""A whole number of 64 bits: SQLite has no other, and only an INTEGER there names rows."""

# AUTOINCREMENT: the id of an evicted page is never given again, so an index row or an access
# count that outlives its page can point nowhere, but never at another page.
page = Table(
    "page",
    metadata,
    Column("id", Whole, primary_key=True),
    Column("op", Text, nullable=False),
    Column("n", Whole, nullable=False),
    Column("nbytes", Whole, nullable=False),
    Column("cost_ns", Whole, nullable=False),
    Column("header", LargeBinary, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("data", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)

Index("ix_page_op", page.c.op)

# What has no room in the data of its page, in its order: number 1 follows what is there (`page_row.MOST_DATA`).
page_part = Table(
    "page_part",
    metadata,
    Column("id", Whole, primary_key=True),
    Column("page_id", Whole, ForeignKey("page.id", ondelete="CASCADE"), nullable=False),
    Column("number", Whole, nullable=False),
    Column("data", LargeBinary, nullable=False),
)
Index("ix_page_part_page_id", page_part.c.page_id, page_part.c.number, unique=True)

# No foreign key: it would need an index on page_id as large as the table, and a row that points
# nowhere is a counted miss anyway.
package = Table(
    "package",
    metadata,
    Column("hash", Whole, primary_key=True, autoincrement=False),
    Column("page_id", Whole, nullable=False),
    Column("slot", Whole, nullable=False),
)

# hashes: of all packages of a page written lately, in their order, eight bytes each. They get rows in `package`
# once there are many.
recent = Table(
    "recent",
    metadata,
    Column("page_id", Whole, primary_key=True, autoincrement=False),
    Column("hashes", LargeBinary, nullable=False),
)

# Index rows that wait for a row each in a large `package`, by part of the hashes' range (`sqlite.gathered_index`):
# eight bytes each of a hash, of its page and of its slot; page_id: the lowest of the pages.
gathered = Table(
    "gathered",
    metadata,
    Column("id", Whole, primary_key=True, autoincrement=False),
    Column("page_id", Whole, nullable=False),
    Column("hashes", LargeBinary, nullable=False),
    Column("places", LargeBinary, nullable=False),
)

# What hashes a part of a large `package` may have (`sqlite.known_hashes`); packages: how many were put into the bits.
known = Table(
    "known",
    metadata,
    Column("part", Whole, primary_key=True, autoincrement=False),
    Column("packages", Whole, nullable=False),
    Column("bits", LargeBinary, nullable=False),
)

page_access = Table(
    "page_access",
    metadata,
    Column("page_id", Whole, primary_key=True, autoincrement=False),
    Column("last_use", Whole, nullable=False),
    Column("hits", Whole, nullable=False),
)

# Totals since the store was made, one row a reason; last: seconds since 1970 of the last eviction.
eviction = Table(
    "eviction",
    metadata,
    Column("reason", Text, primary_key=True),
    Column("pages", Whole, nullable=False),
    Column("packages", Whole, nullable=False),
    Column("nbytes", Whole, nullable=False),
    Column("last", Whole, nullable=False),
)

# head: the number of the last commit of its own, kept by a trigger, so that a commit lost from the end of
# the log shows.
system = Table(
    "system",
    metadata,
    Column("id", Whole, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("uuid", Text, nullable=False),
    Column("spec", Text, nullable=True),
    Column("origin_id", Whole, ForeignKey("system.id"), nullable=True),
    Column("origin_number", Whole, nullable=True),
    Column("head", Whole, nullable=True),
)

# token: the open store that holds the claim; boot and started tell a living process from one that
# has its pid by chance.
writer = Table(
    "writer",
    metadata,
    Column("name", Text, primary_key=True),
    Column("token", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("boot", Text, nullable=False),
    Column("pid", Whole, nullable=False),
    Column("started", Whole, nullable=False),
)

# A bin that is being computed: hashes of its packages, eight bytes each, and nanoseconds that it will take, NULL where
# nobody knows. Its holder keeps a lock named by the id, and is told by boot, pid and started where that is asked.
claim = Table(
    "claim",
    metadata,
    Column("id", Whole, primary_key=True),
    Column("boot", Text, nullable=False),
    Column("pid", Whole, nullable=False),
    Column("started", Whole, nullable=False),
    Column("cost_ns", Whole, nullable=True),
    Column("hashes", LargeBinary, nullable=False),
)

# rows: node rows written with the commit; keyframe: 1 where they are all rows of the system;
# seal: digest over the commit's fields and its node pages, so that a lost or exchanged page shows.
commit_log = Table(
    "commit_log",
    metadata,
    Column("id", Whole, primary_key=True),
    Column("system_id", Whole, ForeignKey("system.id"), nullable=False),
    Column("number", Whole, nullable=False),
    Column("parent", Whole, nullable=True),
    Column("changed", Whole, nullable=False),
    Column("stress", Float, nullable=True),
    Column("residual_norm", Float, nullable=True),
    Column("digest", Text, nullable=False),
    Column("rows", Whole, nullable=False),
    Column("keyframe", Whole, nullable=False),
    Column("seal", LargeBinary, nullable=False),
    UniqueConstraint("system_id", "number", name="uq_commit_log_system_number"),
)

node_page = Table(
    "node_page",
    metadata,
    Column("id", Whole, primary_key=True),
    Column("system_id", Whole, ForeignKey("system.id"), nullable=False),
    Column("number", Whole, nullable=False),
    Column("part", Whole, nullable=False),
    Column("header", LargeBinary, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("data", LargeBinary, nullable=False),
)
Index("ix_node_page_system_number", node_page.c.system_id, node_page.c.number, node_page.c.part, unique=True)

HEAD_TRIGGER = (
    f"CREATE TRIGGER {HEAD_TRIGGER_NAME} AFTER INSERT ON commit_log BEGIN "
    "UPDATE system SET head = max(coalesce(head, -1), NEW.number) WHERE id = NEW.system_id; END"
)
event.listen(commit_log, "after_create", DDL(HEAD_TRIGGER).execute_if(dialect="sqlite"))  # type: ignore[no-untyped-call]
