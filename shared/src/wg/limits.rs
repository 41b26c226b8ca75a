//! What a handshake message has to pass before it may cost a scalar multiplication.
//!
//! 1. The first MAC: who does not know our public key is not even counted.
//! 2. The load: as long as handshakes are rare, everybody is welcome.
//! 3. Per source: when they are not, each IPv4 address or IPv6 /64 has its own rate.
//! 4. The cookie: when the load is too high, only senders that proved their address *and port* pass, at that rate.
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Update};
use blake2::{Blake2s, Blake2s256, Blake2sMac, Digest};

use super::constants::{
    HANDSHAKE_BURST, HANDSHAKES_PER_SECOND, SOURCE_HANDSHAKE_BURST, SOURCE_HANDSHAKES_PER_SECOND,
    UNDER_LOAD_FOR,
};
use super::index::random_u32;
use crate::model::PublicKey;

/// Checks the first MAC of messages to one public key (whitepaper §5.4.4).
#[derive(Debug)]
pub(super) struct Mac1Check {
    key: [u8; 32],
}

const MAC_LEN: usize = 16;

impl Mac1Check {
    pub(super) fn new(ours: &PublicKey) -> Self {
        let mut hash = Blake2s256::new();
        Digest::update(&mut hash, b"mac1----");
        Digest::update(&mut hash, ours.as_bytes());
        Self {
            key: hash.finalize().into(),
        }
    }

    /// Whether the sender of this initiation or response knows our public key. The comparison may take a time that
    /// tells where it ended: the key is made of public values.
    pub(super) fn accepts(&self, message: &[u8]) -> bool {
        let Some((signed, macs)) = split_before_last(message, 2 * MAC_LEN) else {
            return false;
        };
        let Ok(mut mac) = <Blake2sMac<U16> as KeyInit>::new_from_slice(&self.key) else {
            return false;
        };
        Update::update(&mut mac, signed);
        macs.get(..MAC_LEN) == Some(mac.finalize_fixed().as_slice())
    }
}

fn split_before_last(bytes: &[u8], length: usize) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(bytes.len().checked_sub(length)?)
}

/// What to do with a handshake whose first MAC is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on.
    Pass,
    /// Go on if it carries a valid cookie (then ask [`HandshakeGate::admit_verified`]), else answer with one.
    DemandCookie,
    /// Drop it.
    Drop,
}

/// Decides about the load that strangers may cause.
#[derive(Debug)]
pub(super) struct HandshakeGate {
    all: Bucket,
    sources: SourceBuckets,
    under_load_until: Option<Instant>,
}

impl HandshakeGate {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            all: Bucket::full(HANDSHAKE_BURST, now),
            sources: SourceBuckets::new(now),
            under_load_until: None,
        }
    }

    pub(super) fn admit(&mut self, source: IpAddr, now: Instant) -> Verdict {
        if self.under_load_until.is_some_and(|until| now < until) {
            return Verdict::DemandCookie;
        }
        self.all.refill(HANDSHAKES_PER_SECOND, HANDSHAKE_BURST, now);
        let within_rate = self.sources.take(source, now);
        let busy = self.all.tokens() < HANDSHAKE_BURST / 2;
        if busy && !within_rate {
            return Verdict::Drop;
        }
        if self.all.take() {
            return Verdict::Pass;
        }
        self.under_load_until = Some(now + UNDER_LOAD_FOR);
        Verdict::DemandCookie
    }

    /// The sender's address is proven; is it within its rate?
    pub(super) fn admit_verified(&mut self, source: IpAddr, now: Instant) -> bool {
        self.sources.take(source, now)
    }
}

/// A token bucket that counts in millionths of a token, so that refilling every microsecond loses nothing.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    level: u64,
    refilled: Instant,
}

const TOKEN: u64 = 1_000_000;

impl Bucket {
    const fn full(burst: u32, now: Instant) -> Self {
        Self {
            level: burst as u64 * TOKEN,
            refilled: now,
        }
    }

    fn refill(&mut self, per_second: u32, burst: u32, now: Instant) {
        let elapsed = now.saturating_duration_since(self.refilled);
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        if micros > 0 {
            let gained = micros.saturating_mul(u64::from(per_second));
            self.level = self
                .level
                .saturating_add(gained)
                .min(u64::from(burst) * TOKEN);
            self.refilled = now;
        }
    }

    fn tokens(&self) -> u32 {
        u32::try_from(self.level / TOKEN).unwrap_or(u32::MAX)
    }

    fn take(&mut self) -> bool {
        let enough = self.level >= TOKEN;
        if enough {
            self.level -= TOKEN;
        }
        enough
    }
}

/// Buckets of the sources seen of late, in a fixed amount of memory.
///
/// Sets of [`WAYS`] entries, chosen by a keyed hash so that nobody can aim at a neighbour. A bucket refills within
/// [`FULL_AFTER`]; after that its entry says nothing and may be overwritten. When all of a set are younger, the new
/// source is over its rate (as with the kernel's full table).
struct SourceBuckets {
    entries: Box<[SourceBucket]>,
    hash_key: u64,
}

impl fmt::Debug for SourceBuckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceBuckets").finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy)]
struct SourceBucket {
    source: u64,
    bucket: Bucket,
}

const WAYS: usize = 8;
/// 8,192 entries of 32 bytes: enough for 32,768 different sources per second, as each counts for 250 ms.
const SETS: usize = 1024;
const FULL_AFTER: Duration = Duration::from_millis(
    1000 * SOURCE_HANDSHAKE_BURST as u64 / SOURCE_HANDSHAKES_PER_SECOND as u64,
);

impl SourceBuckets {
    fn new(now: Instant) -> Self {
        let unused = SourceBucket {
            source: u64::MAX,
            bucket: Bucket::full(SOURCE_HANDSHAKE_BURST, now),
        };
        Self {
            entries: vec![unused; WAYS * SETS].into_boxed_slice(),
            hash_key: u64::from(random_u32()) << 32 | u64::from(random_u32()),
        }
    }

    /// Take a token of this source.
    fn take(&mut self, address: IpAddr, now: Instant) -> bool {
        let source = source_of(address);
        let Some(entry) = self.entry(source, now) else {
            return false;
        };
        entry
            .bucket
            .refill(SOURCE_HANDSHAKES_PER_SECOND, SOURCE_HANDSHAKE_BURST, now);
        entry.bucket.take()
    }

    fn entry(&mut self, source: u64, now: Instant) -> Option<&mut SourceBucket> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the low bits are what is wanted"
        )]
        let set = mix(source ^ self.hash_key) as usize % SETS * WAYS;
        let ways = self.entries.get_mut(set..set + WAYS)?;
        if let Some(known) = ways.iter().position(|entry| entry.source == source) {
            return ways.get_mut(known);
        }
        let stale = ways.iter_mut().find(|entry| {
            entry.source == u64::MAX
                || now.saturating_duration_since(entry.bucket.refilled) >= FULL_AFTER
        })?;
        *stale = SourceBucket {
            source,
            bucket: Bucket::full(SOURCE_HANDSHAKE_BURST, now),
        };
        Some(stale)
    }
}

/// An IPv4 address or an IPv6 /64 as one number; the two do not meet, for no unicast /64 starts with 16 one bits.
fn source_of(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => 0xffff_0000_0000_0000 | u64::from(u32::from(address)),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            u64::from(a) << 48 | u64::from(b) << 32 | u64::from(c) << 16 | u64::from(d)
        }
    }
}

/// The finalizer of `SplitMix64`.
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// An address that stands for address and port together, for a cookie engine that looks only at addresses.
pub(super) fn address_with_port(remote: SocketAddr) -> IpAddr {
    let mut hash = Blake2s::<U16>::new();
    match remote.ip() {
        IpAddr::V4(address) => Digest::update(&mut hash, address.octets()),
        IpAddr::V6(address) => Digest::update(&mut hash, address.octets()),
    }
    Digest::update(&mut hash, remote.port().to_be_bytes());
    let digest: [u8; 16] = hash.finalize().into();
    IpAddr::from(digest)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a starting point for instants")]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn passed(gate: &mut HandshakeGate, source: IpAddr, count: u32, now: Instant) -> usize {
        (0..count)
            .filter(|_| gate.admit(source, now) == Verdict::Pass)
            .count()
    }

    #[test]
    fn few_handshakes_pass_whatever_their_source() {
        let now = Instant::now();
        let mut gate = HandshakeGate::new(now);
        assert_eq!(passed(&mut gate, STRANGER, 60, now), 60);
    }

    #[test]
    fn one_source_can_not_cause_load_for_others() {
        let start = Instant::now();
        let mut gate = HandshakeGate::new(start);
        for millis in 0..5_000 {
            let now = start + Duration::from_millis(millis);
            passed(&mut gate, STRANGER, 40, now);
            let neighbour = IpAddr::from([198, 51, 100, u8::try_from(millis % 250).unwrap()]);
            if millis % 20 == 0 {
                assert_eq!(
                    gate.admit(neighbour, now),
                    Verdict::Pass,
                    "after {millis} ms"
                );
            }
        }
    }

    #[test]
    fn many_sources_cause_load_and_then_everybody_needs_a_cookie() {
        let now = Instant::now();
        let mut gate = HandshakeGate::new(now);
        let verdicts: Vec<_> = (0..1000_u32)
            .map(|number| gate.admit(Ipv4Addr::from(number * 7919).into(), now))
            .collect();
        let passed = verdicts.iter().filter(|&&verdict| verdict == Verdict::Pass);
        assert_eq!(passed.count(), HANDSHAKE_BURST as usize);
        assert_eq!(verdicts.last(), Some(&Verdict::DemandCookie));
        let later = now + UNDER_LOAD_FOR;
        assert_eq!(gate.admit(STRANGER, later), Verdict::Pass);
    }

    #[test]
    fn a_proven_address_has_a_burst_of_5_and_20_per_second() {
        let start = Instant::now();
        let mut gate = HandshakeGate::new(start);
        let admitted = |gate: &mut HandshakeGate, source, now| {
            (0..100)
                .filter(|_| gate.admit_verified(source, now))
                .count()
        };
        assert_eq!(admitted(&mut gate, STRANGER, start), 5);
        let total: usize = (1..=1000)
            .map(|ms| admitted(&mut gate, STRANGER, start + Duration::from_millis(ms)))
            .sum();
        assert_eq!(total, 20);
        assert_eq!(
            admitted(&mut gate, STRANGER, start + Duration::from_secs(90)),
            5
        );
    }

    #[test]
    fn addresses_of_one_ipv6_64_share_a_rate() {
        let now = Instant::now();
        let mut gate = HandshakeGate::new(now);
        let admitted = (0..100_u16)
            .filter(|&host| {
                gate.admit_verified(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, host]), now)
            })
            .count();
        assert_eq!(admitted, 5);
        assert!(gate.admit_verified(IpAddr::from([0x2001, 0xdb8, 0, 2, 0, 0, 0, 1]), now));
    }

    #[test]
    fn sources_beyond_the_table_are_over_their_rate_and_it_recovers() {
        let now = Instant::now();
        let mut gate = HandshakeGate::new(now);
        let admitted = (0..100_000_u32)
            .filter(|&number| gate.admit_verified(Ipv4Addr::from(number).into(), now))
            .count();
        assert!(admitted <= WAYS * SETS, "{admitted}");
        assert!(admitted >= WAYS * SETS * 9 / 10, "{admitted}");
        assert!(gate.admit_verified(Ipv4Addr::from(99_999_u32).into(), now + FULL_AFTER));
    }

    #[test]
    fn a_cookie_stands_for_address_and_port() {
        let of = |text: &str| address_with_port(text.parse().unwrap());
        assert_eq!(of("192.0.2.1:1"), of("192.0.2.1:1"));
        assert_ne!(of("192.0.2.1:1"), of("192.0.2.1:2"));
        assert_ne!(of("192.0.2.1:1"), of("192.0.2.2:1"));
        assert_ne!(of("[2001:db8::1]:1"), of("[2001:db8::1]:2"));
    }
}
