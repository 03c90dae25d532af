"""The Alembic environment: every schema that a store ever had, one revision a file."""
