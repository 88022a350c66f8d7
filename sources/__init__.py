"""How to read a vendor: HTTP, pages, sweeps and records -> Arrow. Knows dlt, not DuckDB, not pipelines."""
