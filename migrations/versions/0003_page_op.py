"""Pages by op: what explains a miss, or exports one op, reads the pages of that op alone."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the index."""
    op.create_index("ix_page_op", "page", ["op"])


def downgrade() -> None:
    """Drop it: nothing is lost."""
    op.drop_index("ix_page_op", "page")
