//! What every test here stands on, from the process up to the whole rig.

pub(crate) mod process;
pub(crate) mod secrets;

pub(crate) mod certificates;
pub(crate) mod digest;
pub(crate) mod refusal;
pub(crate) mod registry;

pub(crate) mod catalogue;
pub(crate) mod images;

pub(crate) mod mirror;
pub(crate) mod unpacked;
pub(crate) mod upstream;

pub(crate) mod crowd;
pub(crate) mod garage;
pub(crate) mod gate;
pub(crate) mod members;
pub(crate) mod numbers;
pub(crate) mod strace;
pub(crate) mod tunnel;
