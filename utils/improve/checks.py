"""Do findings hold on images that they were not found on? A rule written down before the check.

A finding says that some images of a class fail more often than the others. It holds on new images
if they fail at least NEEDED more often there as well, and Fisher's exact test says so after Holm's
correction for all findings checked. Otherwise it fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.stats import fisher_exact

from ..stats import holm
from .findings import Evidence, Finding, traits

NEEDED = 0.10  # difference of the two shares that fail
ALPHA = 0.05


@dataclass(frozen=True)
class FindingCheck:
    """One finding on new images: how many of those concerned fail, and of the others."""

    finding: Finding
    such: tuple[int, int]  # fail, all
    rest: tuple[int, int]
    p: float = 1.0  # Fisher's exact test, after Holm's correction

    @property
    def difference(self) -> float:
        """Share that fails among such images minus that among the others; NaN if one is empty."""
        if not (self.such[1] and self.rest[1]):
            return float("nan")
        return self.such[0] / self.such[1] - self.rest[0] / self.rest[1]

    @property
    def holds(self) -> bool:
        return bool(self.difference >= NEEDED and self.p < ALPHA)

    @property
    def verdict(self) -> str:
        if self.finding.rule is None:
            return "not testable here: its words name nothing that is measured"
        return "holds" if self.holds else "fails"


def check_findings(findings: Sequence[Finding], evidence: Evidence) -> list[FindingCheck]:
    """Each finding on the images of `evidence`, in the same order."""
    measured = traits(evidence)
    wrong = evidence.predicted != evidence.labels
    checks, tested = [], []
    for finding in findings:
        own = evidence.labels == finding.label
        if finding.rule is None:
            checks.append(FindingCheck(finding, (0, 0), (0, 0)))
            continue
        concerned = finding.rule.concerns(measured)
        such, rest = own & concerned, own & ~concerned
        counts = [(int((wrong & group).sum()), int(group.sum())) for group in (such, rest)]
        table = [[failed, total - failed] for failed, total in counts]
        tested.append(float(fisher_exact(table).pvalue))
        checks.append(FindingCheck(finding, counts[0], counts[1]))
    corrected = iter(holm(np.array(tested)) if tested else [])
    return [
        FindingCheck(c.finding, c.such, c.rest, float(next(corrected)) if c.finding.rule else 1.0)
        for c in checks
    ]


def nonsense(evidence: Evidence, seed: int = 0) -> Evidence:
    """The same images as if others had failed: as many, drawn at random, each called another class.

    What an analyst finds here is what it finds in anything.
    """
    generator = torch.Generator().manual_seed(seed)
    n = len(evidence.labels)
    drawn = torch.randperm(n, generator=generator)[: len(evidence.failed)]
    predicted = evidence.labels.clone()
    predicted[drawn] = (predicted[drawn] + 1) % len(evidence.classes)
    return replace(evidence, predicted=predicted, failed=drawn, near=False)
