"""MetricName: the one grammar of the names of numbers in results."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from tokbench.metric_names.perturbation import EXTENSIONS, PerturbationNaming
from tokbench.metric_names.registry import METRICS, perturbable
from tokbench.metric_names.spec import MetricSpec, NumberSpec, Span, Version, form_name
from tokbench.stats.naming import INFINITY


@dataclass(frozen=True)
class MetricName:
    """The name of a number, taken apart; `str()` puts it together again.

    number: its plain name as in a NumberSpec, or the whole name before the dot where no metric has such a number.
    naming: the key of EXTENSIONS where tokens were perturbed (`grouped` in `pfid_768_grouped`), else None.
    version, span, reader: of scores of words and faces (`ratio`, `all`, `_easyocr` in `t_acc_ratio_all_easyocr`).
    infinite: whether it is extrapolated to infinitely many images. part: what follows the dot: a cell of perturbed
    tokens (`a0.9-d10`), a bin of sizes (`small`), a stream of codes (`sem`); empty where there is no dot.
    """

    number: str
    naming: str | None = None
    version: Version = ""
    span: Span = ""
    reader: str = ""
    infinite: bool = False
    part: str = ""

    @classmethod
    def parse(cls, text: str) -> MetricName:
        """Take a name apart. Every text is a name; `metric` is None where no metric computes such a number."""
        return _parse(text)

    def __str__(self) -> str:
        return f"{self.base}{INFINITY if self.infinite else ''}{f'.{self.part}' if self.part else ''}"

    @property
    def base(self) -> str:
        """The name without part and extrapolation: `pfid_768_grouped` for `pfid_768_grouped.a0.9-d10`."""
        if self.naming is not None:
            return EXTENSIONS[self.naming].apply(perturbable()[self.number])
        return form_name(self.number, self.version, self.span, self.reader)

    @property
    def finite(self) -> str:
        """The name of the number that was extrapolated, where it was; else the name itself."""
        return f"{self.base}{f'.{self.part}' if self.part else ''}"

    @property
    def spec(self) -> MetricSpec | None:
        """The spec of the metric that computes the number; None where there is none."""
        return found[0] if (found := _numbers().get(self.base)) else None

    @property
    def number_spec(self) -> NumberSpec | None:
        """The spec of the number; None where no metric computes it."""
        return found[1] if (found := _numbers().get(self.base)) else None

    @property
    def metric(self) -> str | None:
        """The name of the metric that computes the number: `rfid` for `pfid.a0.9-d10`; None where there is none."""
        return self.spec.name if self.spec else None

    @property
    def is_cell(self) -> bool:
        """Whether it is the number of one cell of perturbed tokens."""
        return bool(self.part) and self.naming is not None

    @property
    def is_part(self) -> bool:
        """Whether it is one cell of perturbed tokens, or one bin of the sizes of words or faces: the mean over those is
        a number, too."""
        return self.is_cell or (bool(self.part) and self.spec is not None and self.spec.reader is not None)

    @property
    def is_detail(self) -> bool:
        """Whether it is for the CSV alone: a curve over sizes, a bin of a ceiling or ratio, a cell."""
        return self.is_cell or self.span == "curve" or bool(self.part and self.version)


@cache
def _parse(text: str) -> MetricName:
    before, _, part = text.partition(".")
    infinite = before.endswith(INFINITY)
    base = before.removesuffix(INFINITY)
    if text.endswith("."):  # a dot that separates nothing belongs to the name
        return MetricName(text)
    known = _numbers()[base][2] if base in _numbers() else MetricName(base)
    return replace(known, infinite=infinite, part=part)


@cache
def _numbers() -> dict[str, tuple[MetricSpec, NumberSpec, MetricName]]:
    """Specs and name by every base name that a metric computes."""
    found = {}
    for spec in METRICS.values():
        for number in spec.numbers:
            for version, span in number.forms():
                name = MetricName(number.name, None, version, span, spec.suffix)
                found[form_name(number.name, version, span, spec.suffix)] = (spec, number, name)
            for key, naming in EXTENSIONS.items():
                if number.perturbed:
                    found[naming.apply(number.perturbed)] = (spec, number, MetricName(number.name, key))
    return found


def _forget() -> None:
    for derived in (_parse, _numbers):
        derived.cache_clear()


METRICS.listeners.append(_forget)


def perturbed_name(number: str, naming: PerturbationNaming) -> str | None:
    """The name of a number of perturbed tokens: `pfid_768` for `rfid_768`; None where it is not computed for them."""
    form = perturbable().get(number)
    return naming.apply(form) if form else None


def metric_of(number: str) -> str | None:
    """The metric that computes a number: `psnr` for `exact`, `rfid` for `rfid_infinity` and `pfid`; None where none
    does."""
    return MetricName.parse(number).metric


def base_metric(number: str) -> str | None:
    """`rfid_768` for `pfid_768_grouped`, `pfid_768.a0.9-d10` and `pfid_768_infinity`; None for numbers of tokens that
    were not perturbed."""
    name = MetricName.parse(number)
    return None if name.naming is None else name.number


def is_single_cell(number: str) -> bool:
    """Whether it is a number of one cell, such as `pfid_768.a0.9-d10`."""
    return MetricName.parse(number).is_cell
