"""The schema's history, for Alembic alone: `env` is its entry, and `versions` a step a file."""
