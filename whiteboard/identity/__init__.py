"""What a value and a package are called: tokens, keys, and all that a key is made of.

`keys` makes digests of bytes, `arithmetic` says how this machine rounds, `lineage` what a page tells of its keys. May
import `ops` and below. A new key scheme is an entry of `keys.SCHEMES`; whoever makes or compares keys asks here.
"""
