"""Histories of a vendor that changes, fails and lies while deskhouse reads it, and of a deskhouse that is killed meanwhile.

A *history* is a vendor's account and a list of steps: changes at the vendor, runs of deskhouse with things happening at
their N-th request, kills at any durable step, lost folders. It is plain data (`steps`), made and shrunk by hypothesis,
and its `repr` can be replayed. `play` carries it out, `chronicle` remembers everything that was ever true at the vendor,
and `judge` compares the two after every run. Nothing here reads the product's own idea of what is right.

Two levels play the same histories:

- `engine`: the sandbox in-process, the real reading, comparing, settling and ledger, and in place of dlt and files a
  DuckDB in memory in which a slice is one transaction. Milliseconds for a run, so thousands of histories.
- `whole`: `pipelines.sync.sync` itself with dlt, files and publishing, in a folder of its own. Seconds for a run.

No step sleeps and no verdict depends on time: waits return at once, and the clock is the sandbox's own.
"""
