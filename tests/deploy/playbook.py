"""How Ansible is run."""

import os
import sys
from pathlib import Path

from rig import run

TOOLS = Path(sys.executable).parent


def environment():
    return {
        **os.environ,
        "PATH": f"{TOOLS}:{os.environ['PATH']}",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_PIPELINING": "1",
        "ANSIBLE_LOCALHOST_WARNING": "0",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "0",
        "ANSIBLE_DEPRECATION_WARNINGS": "0",
        "LC_ALL": "C.UTF-8",
        "NO_COLOR": "1",
    }


def play(world, *arguments):
    variables = {
        **environment(),
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        "ANSIBLE_HOME": str(world.scratch / "ansible-home"),
    }
    return run(TOOLS / "ansible-playbook", *arguments, env=variables)
