"""Idle OpenMP threads sleep instead of spinning: beside other work, spinning made training of small networks 2 to 10 x slower.

Read by OpenMP when torch is first imported, so this is imported before anything else; an OMP_WAIT_POLICY already set is left alone.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
