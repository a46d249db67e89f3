"""A recorded session of coding agents, and its player: so that a newcomer sees life."""
