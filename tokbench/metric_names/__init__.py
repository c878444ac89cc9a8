"""The specs of metrics, and the grammar of the names of numbers and tasks. This package does not import torch."""

from tokbench.metric_names.constants import INCEPTION as INCEPTION
from tokbench.metric_names.grammar import MetricName as MetricName
from tokbench.metric_names.grammar import base_metric as base_metric
from tokbench.metric_names.grammar import is_single_cell as is_single_cell
from tokbench.metric_names.grammar import metric_of as metric_of
from tokbench.metric_names.grammar import perturbed_name as perturbed_name
from tokbench.metric_names.perturbation import ALPHAS as ALPHAS
from tokbench.metric_names.perturbation import ANCHORS as ANCHORS
from tokbench.metric_names.perturbation import CAVEAT as CAVEAT
from tokbench.metric_names.perturbation import DELTAS as DELTAS
from tokbench.metric_names.perturbation import EXTENSIONS as EXTENSIONS
from tokbench.metric_names.perturbation import Anchor as Anchor
from tokbench.metric_names.perturbation import PerturbationNaming as PerturbationNaming
from tokbench.metric_names.perturbation import cell_name as cell_name
from tokbench.metric_names.perturbation import deltas as deltas
from tokbench.metric_names.registry import METRICS as METRICS
from tokbench.metric_names.registry import defaults as defaults
from tokbench.metric_names.registry import groups as groups
from tokbench.metric_names.registry import measurable as measurable
from tokbench.metric_names.registry import metrics_for as metrics_for
from tokbench.metric_names.registry import perturbable as perturbable
from tokbench.metric_names.registry import refuse_task as refuse_task
from tokbench.metric_names.registry import register_metric as register_metric
from tokbench.metric_names.spec import EVERY_MODALITY as EVERY_MODALITY
from tokbench.metric_names.spec import ITEMS as ITEMS
from tokbench.metric_names.spec import MetricSpec as MetricSpec
from tokbench.metric_names.spec import Modality as Modality
from tokbench.metric_names.spec import NumberSpec as NumberSpec
from tokbench.metric_names.spec import Section as Section
from tokbench.metric_names.spec import TaskKind as TaskKind
from tokbench.metric_names.spec import Tolerance as Tolerance
from tokbench.metric_names.tasks import TaskName as TaskName
from tokbench.metric_names.tasks import kind_of_task as kind_of_task
from tokbench.metric_names.tasks import table_of_task as table_of_task

FOUND = "batch size for "
"""The prefix of the provenance entries that were determined during the measurement rather than set by the user."""

PRUNING_PREFIX = "prune-"
"""The prefix of the names of token-reduction result files; no other task has it."""
