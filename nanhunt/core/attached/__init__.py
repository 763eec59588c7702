"""What nanhunt puts up around the user's program, and how that comes off whatever happens."""
