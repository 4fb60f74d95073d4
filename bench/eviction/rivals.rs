//! The policies to compare with.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::Evicts;
use super::trace::Request;

/// First in, first out.
#[derive(Default)]
pub(super) struct Fifo(VecDeque<(u32, u64)>);

/// Least recently used.
#[derive(Default)]
pub(super) struct Lru {
    turn: u64,
    by_turn: BTreeMap<u64, (u32, u64)>,
    turns: HashMap<u32, u64>,
}

impl Evicts for Fifo {
    fn hit(&mut self, _: &Request) {}

    fn insert(&mut self, request: &Request) {
        self.0.push_back((request.blob, request.bytes));
    }

    fn evict(&mut self, _: u32) -> Option<(u32, u64)> {
        self.0.pop_front()
    }
}

impl Evicts for Lru {
    fn hit(&mut self, request: &Request) {
        if let Some(turn) = self.turns.remove(&request.blob) {
            self.by_turn.remove(&turn);
        }
        self.insert(request);
    }

    fn insert(&mut self, request: &Request) {
        self.turn += 1;
        self.by_turn
            .insert(self.turn, (request.blob, request.bytes));
        self.turns.insert(request.blob, self.turn);
    }

    fn evict(&mut self, _: u32) -> Option<(u32, u64)> {
        let (_, gone) = self.by_turn.pop_first()?;
        self.turns.remove(&gone.0);
        Some(gone)
    }
}
