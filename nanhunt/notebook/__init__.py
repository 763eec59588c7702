"""What IPython and Jupyter see: the magics, completion, loops in cells, progress."""
