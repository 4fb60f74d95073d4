//! What takes privileges: clients that unpack what they pull, and filesystems of our own, and another process's
//! system calls.

mod chart;
mod containerd;
mod docker;
mod hosts;
mod nodes;
mod podman;
mod private;
mod troubles;

mod crashes;
mod evictions;
mod owners;
mod power;
mod read_only;
mod storage_faults;
