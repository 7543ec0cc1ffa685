"""Whole nodes in virtual time: real code on simulated disks, links and clocks, with faults drawn from one seed."""

from warp_conformance.simulation.run import Report, simulate
from warp_conformance.simulation.scenario import Scenario, load, names

__all__ = ["Report", "Scenario", "load", "names", "simulate"]
