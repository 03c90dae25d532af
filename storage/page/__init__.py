"""One page: its bytes, and what they and a row's values may be.

`codec` is one array and its gate, `format` a page with its header and digest, `grouping` rows of pages joined and cut;
`page_checks` and `row_checks` say what may stand in them, whoever wrote it; `distance` how far apart two arrays are. No
SQL and no file: what a backend keeps comes through here.
"""
