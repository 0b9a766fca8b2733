"""One student in training: its networks, its optimizers, and the update of every method."""
