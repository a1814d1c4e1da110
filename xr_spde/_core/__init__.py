"""Options, errors, random streams, provenance, lazy imports, progress."""
