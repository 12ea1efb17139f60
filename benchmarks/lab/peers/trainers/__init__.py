"""Tools that train a student or quantized codes, a file each; the file name is the tool's name."""
