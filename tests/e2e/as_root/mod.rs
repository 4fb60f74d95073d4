//! What takes privileges: clients that unpack what they pull, and filesystems of our own.

mod containerd;
mod docker;
mod podman;

mod read_only;
