"""Flags of XLA are set only where this jaxlib knows them."""

from __future__ import annotations

import os
import subprocess
import sys

from masf_jax.cli.xla_flags import known_flags


def test_a_name_is_a_flag_where_xla_takes_it():
    names = ["xla_backend_optimization_level", "xla_backend_optimization", "xla_cpu_use_fusion_emitters"]
    known = known_flags(names)
    assert known[0] == names[0]
    assert names[1] not in known  # a part of a name
    for name in names[1:]:  # the last: in some versions of jaxlib
        code = "import jax; jax.devices()"
        env = os.environ | {"XLA_FLAGS": f"--{name}=0"}
        ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True)
        assert (ended.returncode == 0) == (name in known)
