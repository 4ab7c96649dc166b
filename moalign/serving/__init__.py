"""Serving: from a request's trade-off to a row of the bank, and one batch for all requests."""
