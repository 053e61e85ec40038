"""The order of the stages, as DVC tells it: dvc.yaml is the only graph."""

import re

from flows.dvc_process import dvc_output

TARGET = "register_model"


def stages(target: str = TARGET) -> list[str]:
    """Stages (and .dvc files) that the target needs, itself the last, in the order in which `dvc repro` runs them."""
    return run_order(dvc_output("dag", "--dot", target))


def run_order(dot: str) -> list[str]:
    """Names in DVC's order: depth first, what is needed before what needs it, else as in dvc.yaml."""
    needs: dict[str, list[str]] = {}
    for line in dot.splitlines():
        match re.findall(r'"(.+?)"', line):
            case [name]:
                needs.setdefault(name, [])
            case [needed, name]:
                needs.setdefault(needed, [])
                needs.setdefault(name, []).append(needed)
    order: dict[str, None] = {}

    def visit(name: str) -> None:
        if name not in order:
            for needed in needs[name]:
                visit(needed)
            order[name] = None

    for name in needs:
        visit(name)
    return list(order)
