"""The client side: publishers, spool, hook. Nothing is imported here, so that a hook starts quickly."""
