"""Which test files one process of pytest-xdist runs as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

TOGETHER = {
    "evaluation/test_ranks.py": "processes", "evaluation/test_resume.py": "processes",
    "training/test_train_command.py": "processes", "training/test_zoo.py": "zoo", "report/test_data.py": "report",
    "report/test_page.py": "report", "parity/test_lpips.py": "parity", "parity/test_pytorch_fid.py": "parity",
    "parity/test_torch_fidelity.py": "parity", "parity/test_torchmetrics.py": "parity",
    "evaluation/test_perturb_result.py": "perturb", "evaluation/test_precision.py": "precision",
    "pruning/test_benchmark.py": "prune", "pruning/test_labels.py": "prune",
    "analysis/test_compare.py": "compare",
    "extractors/test_networks.py": "networks", "extractors/test_text.py": "text", "extractors/test_face.py": "face",
    "docs/test_packaging.py": "packaging", "metric_names/test_metric_plugins.py": "plugins",
}  # fmt: skip
"""Files whose tests share what takes long to make, by the name of their set: one process runs all files of a set.

The sets come first, those with the most tests at the beginning; all other tests are distributed one by one.
"""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """`--dist loadgroup` puts groups into names of tests that pytest 9.2 no longer asks for."""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return TOGETHER.get(nodeid.partition("::")[0].removeprefix("tests/"), nodeid)

        def remove_node(self, node: WorkerController) -> str | None:
            """Return the test in which a process died, and hand its other tests to the others.

            The class above would hand on finished sets as well, for which no process ever reports an end, so the run
            would wait for ever; and the fatal test again, so the next process would die.
            """
            workload = self.assigned_work.pop(node)
            left = [test for tests in workload.values() for test, done in tests.items() if not done]
            if not left:
                return None
            for scope, tests in workload.items():
                if others := {test: False for test, done in tests.items() if not done and test != left[0]}:
                    self.workqueue[scope] = others
            for other in self.assigned_work:
                self._reschedule(other)
            return left[0]

    return Together(config, log)
