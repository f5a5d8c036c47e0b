"""Idle OpenMP threads sleep instead of spinning: beside other work, spinning made training of small networks 2 to 10 x slower.

OpenMP reads this when torch is first imported, so it comes before anything else; an OMP_WAIT_POLICY already set stays.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
