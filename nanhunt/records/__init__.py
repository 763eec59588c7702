"""Records: every result as numbers and strings, and its JSON form."""
