//! How much of what all clients share one of them may have.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many leading bits of an IPv6 address say whose it is. A network of that size is what one machine is given as a
/// rule, and it may take any number of addresses from it (RFC 4291 section 2.5.4, RFC 8981).
const IPV6_PREFIX_BITS: u32 = 64;

/// What each client has under way: things, of which it may have so many. A thing that a client has several times counts
/// once. Cheap to clone; all clones count together.
pub struct Shares<T>(Arc<Inner<T>>);

struct Inner<T> {
    most: usize,
    /// By client, and how often each has each thing. Nobody is in here who has nothing.
    held: Mutex<HashMap<IpAddr, HashMap<T, usize>>>,
}

/// One thing that a client has, until this is dropped.
pub struct Share<T: Eq + Hash> {
    of: Arc<Inner<T>>,
    client: IpAddr,
    thing: T,
}

impl<T: Clone + Eq + Hash> Shares<T> {
    /// Nobody has anything, and may have `most` things.
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Inner {
            most,
            held: Mutex::default(),
        }))
    }

    /// Gives `thing` to the client at `address`; `None` where that would be one too many.
    #[must_use = "the thing is given back when this is dropped"]
    pub fn take(&self, address: IpAddr, thing: T) -> Option<Share<T>> {
        let client = client(address);
        let mut held = self.0.held();
        let things = held.entry(client).or_default();
        let n_things = things.len();
        match things.entry(thing.clone()) {
            Entry::Occupied(mut known) => *known.get_mut() += 1,
            Entry::Vacant(new) if n_things < self.0.most => {
                new.insert(1);
            }
            Entry::Vacant(_) => return None,
        }
        drop(held);
        Some(Share {
            of: Arc::clone(&self.0),
            client,
            thing,
        })
    }
}

impl<T> Inner<T> {
    fn held(&self) -> MutexGuard<'_, HashMap<IpAddr, HashMap<T, usize>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Eq + Hash> Drop for Share<T> {
    fn drop(&mut self) {
        let mut held = self.of.held();
        let Some(things) = held.get_mut(&self.client) else {
            return;
        };
        if let Some(times) = things.get_mut(&self.thing) {
            *times -= 1;
            if *times == 0 {
                things.remove(&self.thing);
            }
        }
        if things.is_empty() {
            held.remove(&self.client);
        }
    }
}

impl<T> Clone for Shares<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Shares<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shares")
            .field("most", &self.0.most)
            .finish_non_exhaustive()
    }
}

impl<T: Eq + Hash> fmt::Debug for Share<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share").finish_non_exhaustive()
    }
}

/// Whose address that is: one machine's, as far as an address can tell.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let host_bits = u128::BITS - IPV6_PREFIX_BITS;
            Ipv6Addr::from_bits(address.to_bits() >> host_bits << host_bits).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_client_has_its_share_and_no_more_whatever_others_have() {
        let shares = Shares::new(2);
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        let first = shares.take(one, "a").expect("the first");
        let _second = shares.take(one, "b").expect("the second");
        assert!(shares.take(one, "c").is_none());
        let _of_other = shares.take(other, "c").expect("another client's");
        drop(first);
        let _third = shares.take(one, "c").expect("what was given back");
        assert!(shares.take(one, "a").is_none());
    }

    #[test]
    fn the_same_thing_counts_once_and_as_long_as_anybody_has_it() {
        let shares = Shares::new(1);
        let one = address("192.0.2.1");
        let first = shares.take(one, "a").expect("the first");
        let second = shares.take(one, "a").expect("the same");
        drop(first);
        assert!(shares.take(one, "b").is_none());
        drop(second);
        assert!(shares.take(one, "b").is_some());
        assert!(shares.0.held().is_empty(), "nobody has anything");
    }

    #[test]
    fn a_network_of_one_machine_is_one_client() {
        let same = |one: &str, other: &str| client(address(one)) == client(address(other));
        assert!(same("2001:db8:0:1::1", "2001:db8:0:1:ffff::2"));
        assert!(!same("2001:db8:0:1::1", "2001:db8:0:2::1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
    }
}
