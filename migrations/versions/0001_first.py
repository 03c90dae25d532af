"""Package pages with their index, systems, commits and node pages."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Of 64 bits everywhere; in SQLite it is called so.
WHOLE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create the first schema."""
    op.create_table(
        "page",
        sa.Column("id", WHOLE, primary_key=True),
        sa.Column("op", sa.Text, nullable=False),
        sa.Column("n", WHOLE, nullable=False),
        sa.Column("nbytes", WHOLE, nullable=False),
        sa.Column("cost_ns", WHOLE, nullable=False),
        sa.Column("header", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "package",
        sa.Column("hash", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("page_id", WHOLE, nullable=False),
        sa.Column("slot", WHOLE, nullable=False),
    )
    op.create_table(
        "page_access",
        sa.Column("page_id", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("last_use", WHOLE, nullable=False),
        sa.Column("hits", WHOLE, nullable=False),
    )
    op.create_table(
        "system",
        sa.Column("id", WHOLE, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("uuid", sa.Text, nullable=False),
        sa.Column("spec", sa.Text, nullable=True),
        sa.Column("origin_id", WHOLE, sa.ForeignKey("system.id"), nullable=True),
        sa.Column("origin_number", WHOLE, nullable=True),
        sa.Column("head", WHOLE, nullable=True),
    )
    op.create_table(
        "writer",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("boot", sa.Text, nullable=False),
        sa.Column("pid", WHOLE, nullable=False),
        sa.Column("started", WHOLE, nullable=False),
    )
    op.create_table(
        "commit_log",
        sa.Column("id", WHOLE, primary_key=True),
        sa.Column("system_id", WHOLE, sa.ForeignKey("system.id"), nullable=False),
        sa.Column("number", WHOLE, nullable=False),
        sa.Column("parent", WHOLE, nullable=True),
        sa.Column("changed", WHOLE, nullable=False),
        sa.Column("stress", sa.Float, nullable=True),
        sa.Column("residual_norm", sa.Float, nullable=True),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("rows", WHOLE, nullable=False),
        sa.Column("keyframe", WHOLE, nullable=False),
        sa.Column("seal", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("system_id", "number", name="uq_commit_log_system_number"),
    )
    op.create_table(
        "node_page",
        sa.Column("id", WHOLE, primary_key=True),
        sa.Column("system_id", WHOLE, sa.ForeignKey("system.id"), nullable=False),
        sa.Column("number", WHOLE, nullable=False),
        sa.Column("part", WHOLE, nullable=False),
        sa.Column("header", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_node_page_system_number", "node_page", ["system_id", "number", "part"], unique=True)
    if op.get_bind().dialect.name == "postgresql":
        for table in ("page", "node_page"):  # compressed already, and read in parts
            op.execute(f"ALTER TABLE {table} ALTER COLUMN data SET STORAGE EXTERNAL")
        op.execute(
            "CREATE FUNCTION system_head() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "UPDATE system SET head = NEW.number WHERE id = NEW.system_id AND coalesce(head, -1) < NEW.number; "
            "RETURN NEW; END $$"
        )
        op.execute("CREATE TRIGGER system_head AFTER INSERT ON commit_log FOR EACH ROW EXECUTE FUNCTION system_head()")
        return
    op.execute(
        "CREATE TRIGGER system_head AFTER INSERT ON commit_log BEGIN "
        "UPDATE system SET head = max(coalesce(head, -1), NEW.number) WHERE id = NEW.system_id; END"
    )
