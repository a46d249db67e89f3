"""The pure floor: state machines that take time as an argument and give effects as values."""
