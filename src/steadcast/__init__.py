"""Steadcast carries events to every open dashboard: in order, each applied once."""
