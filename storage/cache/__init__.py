"""Packages by key: the tiers, what waits to be written, and what goes when it is too much.

`memory` is the tier in front of `packages`, both hold pages by `page_index`; `write_behind` is what waits, `encoding`
what is written of it, `lookup` what is read, `admission` what is worth its place, `eviction` what goes, `claims` who
computes what; `page_summaries` tell of packages without their arrays, `page_listing` of all of an op's with them. May
import `sql`, `page`, and of `sqlite` the locks of claims.
"""
