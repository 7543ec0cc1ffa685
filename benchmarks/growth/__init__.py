"""Growth: what a lookup, a listing and a commit cost with 10^3, 10^5 and 10^6 objects in one volume.

Question: does the cost of an operation depend on how much is stored? For each size there is a node of its own, so that everything
grows with the size: index, caches, journal. All are open in this process and take turns within each round of each verb, so what
else the machine does meets all alike. The figure is CPU time of the process per verb (HTTP left out, checkpoints and syncs in); its
ratio to the smallest size is what the promise is about, at most `GATE`.

A volume of 10^3 objects lies in the processor's caches as a whole, one of 10^6 in memory that is a hundred times as far away, so that
a plain dictionary of the same rows grows, too. What such a floor adds stands beside each lookup, measured in the same rounds.

What depends on the caches is told apart. *uniform* picks any object, so that with 10^6 nearly every read misses all caches, the
processor's and ours; *zipf* picks as clients do, half of the requests for a thousandth of the objects. Content is in the page cache
for both; a last pass without it says what random reads of a disk add, which is not gated. Then LIST beside 10^5 delete markers.
"""

from __future__ import annotations

from benchmarks.growth.main import main

__all__ = ["main"]
