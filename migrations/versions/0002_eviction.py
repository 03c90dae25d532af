"""What was evicted, counted for good: nothing leaves a store without a trace."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table of totals, one row a reason."""
    op.create_table(
        "eviction",
        sa.Column("reason", sa.Text, primary_key=True),
        sa.Column("pages", sa.Integer, nullable=False),
        sa.Column("packages", sa.Integer, nullable=False),
        sa.Column("nbytes", sa.Integer, nullable=False),
        sa.Column("last", sa.Integer, nullable=False),
    )
