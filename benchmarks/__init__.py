"""Steadcast beside its peers, measured in one interleaved go: `make bench`."""
