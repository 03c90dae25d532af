"""State that moves by commits: versioned nodes, the impulses on them, and the rules that turn these into new versions.

`jobs` says what a caller asks for; `nodes` holds the state, `attributes` come into it, `node_sources` gathers from
it, and `row_digests` tell its rows apart; `propagate` answers a batch over nodes and makes impulses of `residuals` and
`weights`, `answering` does so for all jobs of a call, `node_impulse` is one that a caller makes; `impulses` and `exact`
sum them; `rules` and `transition` work out what changes, and `rounds` the commit of all that came since the last;
`state` and `history` are what is kept of it, `specification` what a system is called and said to be; `system` holds it
together, `opened` are those of one store, `sinks` and `submission` their ways in and out. May import `evaluation` and
below. A rule is a class in `rules`.
"""
