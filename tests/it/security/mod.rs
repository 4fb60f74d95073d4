//! Bad input, by the numbers of security.md. What is wrong with a request is said before anything is done: no
//! connection to an upstream, no file touched.

mod hosts;
mod input;
mod namespaces;
mod ways;

mod framing;

mod certificates;
mod credentials;
mod planted;
mod poisoning;
mod redirects;
mod shares;
mod tokens;

mod floods;
mod hostile_upstream;
mod lists;

mod traces;
