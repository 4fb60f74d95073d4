//! The integration suite: one binary, in reading order. A real listener, a real client and a real upstream that is
//! scripted and counts, all in this process and on loopback.

mod harness;

mod architecture;
