"""For loops that must go on: undo what went bad, count it, and keep it for a later hunt."""
