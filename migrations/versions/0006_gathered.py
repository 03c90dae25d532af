"""Packages of a large store wait for their rows in the index by parts of it, and filters say what has none."""

from __future__ import annotations

import struct

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, where it is a file that has to be changed all over."""
    if op.get_bind().dialect.name != "sqlite":
        return
    op.create_table(
        "gathered",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("page_id", sa.Integer, nullable=False),
        sa.Column("hashes", sa.LargeBinary, nullable=False),
        sa.Column("places", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "known",
        sa.Column("part", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("packages", sa.Integer, nullable=False),
        sa.Column("bits", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    """Give each hash its row in the index, and drop the tables: nothing is lost."""
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        return
    for hashes, places in connection.exec_driver_sql("SELECT hashes, places FROM gathered ORDER BY id").all():
        if isinstance(hashes, bytes) and isinstance(places, bytes) and 2 * len(hashes) == len(places):
            found = zip(struct.iter_unpack("<q", hashes), struct.iter_unpack("<qq", places), strict=True)
            rows = [(*hashed, *place) for hashed, place in found]
            if rows:
                connection.exec_driver_sql("INSERT OR IGNORE INTO package VALUES (?, ?, ?)", rows)
    op.drop_table("gathered")
    op.drop_table("known")
