"""Subscribers that say how long an event was under way."""
