"""Contracts that third parties can run on their own methods."""
