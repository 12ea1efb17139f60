"""A folder that nobody but its owner can enter, and in which nothing leads outside.

What works in a folder of a known name writes to known names in it, through libraries that follow links.
Whoever was there before may have planted one: it is looked for once the folder is closed, when nobody can
plant another.
"""

import os
import stat
from collections import Counter
from pathlib import Path


def close_folder(folder: Path) -> Path | None:
    """Take from everybody but the owner all rights to the directory ``folder``; returns the first thing below
    it that leads outside or is no plain file: a symbolic link, a hard link of a file elsewhere, a pipe.
    """
    flags = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
    if hasattr(os, "fchmod"):
        descriptor = os.open(folder, flags)
        try:
            os.fchmod(descriptor, 0o700)
        finally:
            os.close(descriptor)
    names, links, where = (
        Counter[tuple[int, int]](),
        dict[tuple[int, int], int](),
        dict[tuple[int, int], Path](),
    )
    for directory, folders, files in os.walk(folder):
        for path in (Path(directory, name) for name in sorted([*folders, *files])):
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode):
                continue
            if not stat.S_ISREG(status.st_mode):
                return path
            key = (status.st_dev, status.st_ino)
            names[key] += 1
            links[key], where[key] = status.st_nlink, path
    # Our own shards are hard links of parts: all names of such a file are in the folder.
    return next((where[key] for key, count in names.items() if links[key] > count), None)
