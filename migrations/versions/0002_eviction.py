"""What was evicted, counted for good: nothing leaves a store without a trace."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from whiteboard.errors import SchemaError

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table of totals, one row a reason."""
    op.create_table(
        "eviction",
        sa.Column("reason", sa.Text, primary_key=True),
        sa.Column("pages", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
        sa.Column("packages", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
        sa.Column("nbytes", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
        sa.Column("last", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
    )


def downgrade() -> None:
    """Drop the table, where it counts nothing.

    Raises
    ------
    SchemaError
        Totals would be lost.
    """
    counted = op.get_bind().exec_driver_sql("SELECT coalesce(sum(packages), 0) FROM eviction").scalar_one()
    if counted:
        message = f"schema 0001 has no place for the count of what was evicted, {counted:,} packages: it would be lost"
        raise SchemaError(message)
    op.drop_table("eviction")
