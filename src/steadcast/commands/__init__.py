"""The commands. Each imports what it needs when it runs, so that none pays for another's libraries."""
