"""What a run does: settings, sync, ledger, publishing and the command line. Knows sources, dlt and DuckDB."""
