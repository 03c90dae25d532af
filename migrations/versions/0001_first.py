"""Package pages with their index, systems, commits and node pages."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the first schema."""
    op.create_table(
        "page",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("op", sa.Text, nullable=False),
        sa.Column("n", sa.Integer, nullable=False),
        sa.Column("nbytes", sa.Integer, nullable=False),
        sa.Column("cost_ns", sa.Integer, nullable=False),
        sa.Column("header", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "package",
        sa.Column("hash", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("page_id", sa.Integer, nullable=False),
        sa.Column("slot", sa.Integer, nullable=False),
    )
    op.create_table(
        "page_access",
        sa.Column("page_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("last_use", sa.Integer, nullable=False),
        sa.Column("hits", sa.Integer, nullable=False),
    )
    op.create_table(
        "system",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("uuid", sa.Text, nullable=False),
        sa.Column("spec", sa.Text, nullable=True),
        sa.Column("origin_id", sa.Integer, sa.ForeignKey("system.id"), nullable=True),
        sa.Column("origin_number", sa.Integer, nullable=True),
        sa.Column("head", sa.Integer, nullable=True),
    )
    op.create_table(
        "writer",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("boot", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("started", sa.Integer, nullable=False),
    )
    op.create_table(
        "commit_log",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("system_id", sa.Integer, sa.ForeignKey("system.id"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("parent", sa.Integer, nullable=True),
        sa.Column("changed", sa.Integer, nullable=False),
        sa.Column("stress", sa.Float, nullable=True),
        sa.Column("residual_norm", sa.Float, nullable=True),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("keyframe", sa.Integer, nullable=False),
        sa.Column("seal", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("system_id", "number", name="uq_commit_log_system_number"),
    )
    op.create_table(
        "node_page",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("system_id", sa.Integer, sa.ForeignKey("system.id"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("part", sa.Integer, nullable=False),
        sa.Column("header", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_node_page_system_number", "node_page", ["system_id", "number", "part"], unique=True)
    op.execute(
        "CREATE TRIGGER system_head AFTER INSERT ON commit_log BEGIN "
        "UPDATE system SET head = max(coalesce(head, -1), NEW.number) WHERE id = NEW.system_id; END"
    )
