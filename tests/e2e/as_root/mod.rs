//! Clients that unpack what they pull, which takes mounts and so privileges.

mod containerd;
mod docker;
mod podman;
