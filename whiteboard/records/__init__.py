"""What crosses the seam between the store and everything else: plain values, no SQL, no behaviour.

`packages` and `systems` are what is kept, `claims` who computes what, `reports` what looking after a store found,
`adjacent` columns of several pages as one, `distance` the measure in which both sides say how far apart two arrays are.
Imports nothing of Whiteboard; every room, and the store, may import it.
"""
