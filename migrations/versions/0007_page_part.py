"""Pages of more bytes than a value holds: what has no room in their rows lies in rows of its own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from whiteboard.errors import SchemaError

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "page_part",
        sa.Column("id", WHOLE, primary_key=True),
        sa.Column("page_id", WHOLE, sa.ForeignKey("page.id", ondelete="CASCADE"), nullable=False),
        sa.Column("number", WHOLE, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_page_part_page_id", "page_part", ["page_id", "number"], unique=True)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE page_part ALTER COLUMN data SET STORAGE EXTERNAL")


def downgrade() -> None:
    """Drop the table, where nothing is in it.

    Raises
    ------
    SchemaError
        Packages would be lost.
    """
    pages = op.get_bind().exec_driver_sql("SELECT count(DISTINCT page_id) FROM page_part").scalar_one()
    if pages:
        message = f"schema 0006 has no place for packages as large as those of {pages:,} pages: they would be lost"
        raise SchemaError(message)
    op.drop_table("page_part")
