"""HTTP: CloudEvents ingest, hooks, reads, SSE, health, metrics and the page."""
