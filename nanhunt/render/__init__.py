"""Records as stories, as text, as HTML and as figures; knows records by their types only."""
