"""The tests of readers share the tiny layouts of `reader_layouts`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
