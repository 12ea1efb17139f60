"""Tools that prune, a file each; the file name is the tool's name."""
