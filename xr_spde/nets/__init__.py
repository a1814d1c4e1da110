"""Networks that estimate parameter maps: torch modules on arrays, without labels."""
