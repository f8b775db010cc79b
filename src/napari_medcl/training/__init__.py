"""Runs: a stream of events, kept in a folder."""
