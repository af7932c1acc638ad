"""A stand-in for `cvmfs_server`, which cannot be installed where the tests run.

It does with real overlay mounts what the real program does with CVMFS, so that the kernel's rules are the real ones:
in a transaction's area 0:0 devices are refused, and so on. What each command does, says and returns follows what was
measured on version 2.12 and its source (CernVM-FS, cvmfs/server/*.sh and cvmfs/publish/*.cc). It keeps everything
below `$CVMFS_STANDIN`; `control.py` says how a test makes it fail or hang.
"""
