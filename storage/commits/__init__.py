"""Systems, their commits, and every version of every node: what is never lost.

`versions` writes and reads commits; `log` is a history behind its seals, over forks; `materialize` makes a state of
the pages of several commits; `writers` are who may write a system; `sealed` is a commit from elsewhere, `provenance`
the values that packages came from. May import `cache`, with which a commit shares its transaction.
"""
