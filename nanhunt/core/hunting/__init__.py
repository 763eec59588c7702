"""The hunt: steps under watch, and the investigation of one that went bad."""
