"""Configuration: one TOML file, decoded into frozen structs, with errors that teach.

A plugin describes its own table by a frozen `msgspec.Struct`, with the types of this package for
sizes, durations and addresses:

```python
class Config(Listening, frozen=True, kw_only=True):
    listen: Address = Address("127.0.0.1:9000")
    head_max: Annotated[Size, Between("1KiB", "1MiB")] = Size(16 * 1024)
```
"""

from warp_core.config.model import (
    Listening,
    Log,
    Metadata,
    Node,
    Part,
    Policy,
    Settings,
)
from warp_core.config.types import (
    Address,
    Between,
    Codec,
    Duration,
    Redundancy,
    Secret,
    Size,
)

__all__ = [
    "Address",
    "Between",
    "Codec",
    "Duration",
    "Listening",
    "Log",
    "Metadata",
    "Node",
    "Part",
    "Policy",
    "Redundancy",
    "Secret",
    "Settings",
    "Size",
]
