"""The jobs and the command."""
