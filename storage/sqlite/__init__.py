"""One SQLite file: where it is, who has it open, who may write when, and the rows in it.

`location` and `file_identity` say which file; `database` gives a `transaction` of a `connection`, with `bounds` on what
a statement takes; `connecting` makes connections, `pool` keeps and closes them, `failures` are what SQLite says went
wrong; `write_queue` is who writes next, `claim_locks` who computes what, `wal` keeps the log short, `holders` are who
has it open, `part_files` become files when they are whole; `schema` says what is in it, `new_store` makes it, and
`rows`, `one_package` by itself, `opened_data` of large pages, `recent_index`, `gathered_index` and `known_hashes` are
the SQL of packages. May import `page` and `sql`. A migration changes `sql.tables`, `sql.metadata`, `schema` and
`new_store` together.
"""
