"""The 36 faults of `facts/reliability.md` §5, played against real runs and counted.

    points.py    names of moments within a run, and what may be done at one: inert unless a run is started with them
    launch.py    starts runs as processes of their own and waits for them
    case.py      one fault with one seed: a world, a warehouse, a stranger, a reader, and what was found wrong
    count.py     the checker: the ledger of truth against the warehouse, in eight counters
    peer.py      the same three APIs with plain dlt `rest_api`, as a careful user would write it
    process.py network.py content.py lists.py trust.py   the faults
    table.py     all of them, numbered
    book.py      docs/reliability.md

The nemesis breaks one thing; when it stops and one clean run has ended, the checker compares what the vendors hold, and
ever held, with what readers see. `python -m faults --seeds 1 --jobs 2`, in the folder `tests`.
"""
