"""The user's program: its model, its lines of code, its calls and what it prints."""
