"""Pages written lately are indexed page by page, so that a small flush does not change the index all over."""

from __future__ import annotations

import struct

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table, where it is a file that has to be changed all over."""
    if op.get_bind().dialect.name != "sqlite":
        return
    op.create_table(
        "recent",
        sa.Column("page_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("hashes", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    """Give each hash its row in the index, and drop the table: nothing is lost."""
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        return
    for page_id, hashes in connection.exec_driver_sql("SELECT page_id, hashes FROM recent ORDER BY page_id").all():
        if isinstance(hashes, bytes) and len(hashes) % 8 == 0:
            rows = [(each, page_id, slot) for slot, (each,) in enumerate(struct.iter_unpack("<q", hashes))]
            if rows:
                connection.exec_driver_sql("INSERT OR IGNORE INTO package VALUES (?, ?, ?)", rows)
    op.drop_table("recent")
