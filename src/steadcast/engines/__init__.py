"""Engines: durable logs with positions, behind one interface, chosen by URL."""
