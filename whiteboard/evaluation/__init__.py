"""Jobs answered from the cache or by computing, as columns: whatever the sources are, wherever the store.

In the order of the way through: `queue`, `triage`, `bins` (by what jobs cost: `costs`), `session` (with its `buffers`,
and where its `results` go), `separate`; `pipeline` is the way itself. Its misses are a `filling`, which asks an
`execution` for what no other thread has among its `flights`, and waits for what another process computes, `elsewhere`.
`columns` and `sources` are how a batch comes in, `bound` is an op as a function, `single` the short way of one job that
lies in memory, `thrift` what is computed without a key, `contents` what its packages hold, `kept_sources` what of the
sources stays with them, `validation` what may be put for it, `jacobians` what is made of packages of many cotangents,
`promises` and `agreement` what is tested of users' ops on the way, `canonical` what becomes of NaNs, `progress` how far
it is, `counts` what was answered so far. May import `identity`, `ops` and the ABCs of the store; sees no node, no
system and no SQL. A stage is a file here and a line in `pipeline`.
"""
