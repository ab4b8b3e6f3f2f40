"""Write what is generated into a working copy."""

import sys
from pathlib import Path

from dynamic_toolset.definition import files

for name, text in files().items():
    (Path(sys.argv[1]) / name).write_text(text, encoding="utf-8")
