"""One page: its bytes, and what they and a row's values may be.

`codec` is one array and its gate, `blosc` Blosc2 without the rest of its package, `digests` what vouches for bytes,
`format` a page with its header, `landing` a page that is read as a whole, `stacking` where its arrays go beside those
of others, `one_row` one package of a page alone, `grouping` rows of pages joined and cut; `page_checks` and
`row_checks` say what may stand in them, whoever wrote it. No SQL and no file: what a backend keeps comes through here.
"""
