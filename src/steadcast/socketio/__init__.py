"""Socket.IO on one side, the hub on the other."""
