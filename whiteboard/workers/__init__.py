"""Bins computed elsewhere: by threads, processes or machines behind a `concurrent.futures.Executor`.

`client` is an `Execution` of the pipeline that cuts misses by what their op costs and sends those that are worth it;
`messages` are what goes there and back, `passing` how an op does, `worker` is the function that runs there, and never
touches the store; `processes` is the executor that an int stands for, and `process` what each of them runs. May import
`evaluation`, `identity` and `ops`; sees no board, no system and no store.
"""
