"""The whole chain on real data: ``python -m xr_spde.demo`` writes one page to look at."""

from __future__ import annotations

from xr_spde.demo.chain import Chain, run_chain
from xr_spde.demo.report import write_report

__all__ = ["Chain", "run_chain", "write_report"]
