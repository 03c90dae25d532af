"""What every backend of SQL shares: the tables, the rows of packages, and the seam behind which backends differ.

`metadata` says what the migrations arrive at, and `tables` what its values are; `location` where a store is, `backend`
what a backend has to be (a `Database`, and a module of the shape of `Rows`), `page_row` what a page is inserted as,
`rows` what is done with pages and their index, `results` what a statement gave. May import `page`.
"""
