//! What a read-only pull-through registry must answer, by the letters and numbers of conformance.md. Unless a test
//! says otherwise it holds for every way in, when the mirror is asked for the first time, again, and again with the
//! upstream gone.

mod base;
mod names;

mod manifests;
mod manifests_refused;

mod blobs;
mod ranges;

mod tags_list;

mod referrers;

mod conditional;

mod accept;

mod writes;

mod errors;
