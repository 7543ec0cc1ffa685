"""The namespace: volumes, names, inodes, revisions, versions, snapshots, written once for all views.

Where what lies:

| about | modules |
| --- | --- |
| rows | `keys` `rows` `tree` (snapshots and clones of rows) `volumes` `ids` `inodes` `usage` `witnesses` |
| a transaction | `namespace` (runs it) `changes` (names, revisions, garbage) `versions` `paths` `lookup` |
| Objects | `objects` `object_volumes` `object_reading` `object_changes` `object_copying` `object_sources` `object_locking` |
| their parts | `object_admission` `direct` `described` `listing` `uploads` `upload_rows` |
| content written whole | `content` |
| Files | `files` `naming` `finding` `apart` (inodes set apart from names) `openfiles` `access` `principals` |
| Blocks | `blocks` `disks` `reservations` |
| content written in place | `contents` (in memory) `layers` (rows, read) `folding` (rows, changed) `tables` `extents` `filelog` |
| opens | `opens` `shares` `locks` `leases` |
| time | `snapshots` `rollback` |
| upkeep | `upkeep` `garbage` `feed` `check` `audit` `recount` `salvage` |
"""
