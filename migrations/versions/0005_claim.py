"""Bins that are being computed are claimed, so that several processes compute each once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "claim",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("boot", sa.Text, nullable=False),
        sa.Column("pid", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
        sa.Column("started", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
        sa.Column("cost_ns", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=True),
        sa.Column("hashes", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    """Drop the table: nobody has the store open, so nobody computes."""
    op.drop_table("claim")
