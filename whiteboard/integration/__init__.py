"""Other people's systems and caches: whoever has nodes of their own, or results to bring along.

`bridge_v2` pushes impulses of ops into any system: `foreign_calls` says what is asked for, by `foreign_names`,
`foreign_nodes` reads, `foreign_answers` answers, and `foreign_single` one call that lies in memory. `calls` is
`wb.Ops`; `legacy` reads caches of other libraries. May import the board, and nothing of the store. An adapter for
another system is a file here.
"""
