"""What moves between stores: archives, exports, imports and merges, in bounded memory, and twice the same as once.

`contents` reads a store, `archive` is the file that `export` writes and `survey` and `import_archive` read;
`merge_packages` and `merge_systems` take in what comes, from an archive or by `merge` from a store; `compare` says
what differs. May import `commits` and below.
"""
