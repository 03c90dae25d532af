"""Looking after a store: is it whole, what may go, and packages in another form or under other keys.

`verify` looks at every byte and repairs, with `unreadable` for rows that nobody can read; `gc` gives space back,
`remove` takes out what somebody names, `recompress` rewrites what `recompress_plan` lists, `rename_keys` gives packages
other keys. Nothing prints. May import every other room.
"""
