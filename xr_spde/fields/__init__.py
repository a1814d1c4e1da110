"""Operators on arrays: the mathematics, without labels."""
