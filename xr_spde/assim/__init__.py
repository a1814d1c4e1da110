"""Assimilation: what observations say about a field, given an ensemble or a Gaussian field."""
