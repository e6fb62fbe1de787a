"""The labs: notebooks with exercises, and `labs.checks`, the graders that talk back."""
