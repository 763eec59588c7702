"""The interactive panel: stock ipywidgets over a `nanhunt.Hunt`. The only place with widgets."""
