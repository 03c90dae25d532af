"""The built-in ops, a family a file.

An op is a function with its VJP beside it, registered by `registry.builtin`. A new one is a function in its family's
file and a word in `catalogue.py`. A function's name and code are part of fingerprints: rename none. May import the
kernels and the rest of `ops`, nothing else of Whiteboard but errors and types.
"""
