"""Training against discriminators: their networks, their losses and their steps."""
