//! Hash maps with a secret of the process in the hash.
//!
//! The keys are what programs choose, or what they take from others: idents,
//! names of files. Under a hash that is known, keys can be chosen that all
//! collide, and each of them takes as long as all before it.

mod secret;

use self::secret::Secret;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher};

pub(crate) type Map<K, V> = HashMap<K, V, Seeded>;
pub(crate) type Set<K> = HashSet<K, Seeded>;

/// Makes the hashers of all maps.
#[derive(Clone, Copy, Default)]
pub(crate) struct Seeded;

impl Seeded {
    pub const fn new() -> Self {
        Self
    }
}

impl BuildHasher for Seeded {
    type Hasher = Mixer;

    #[inline]
    fn build_hasher(&self) -> Mixer {
        match SECRET.get() {
            Some((state, factor)) => Mixer { state, factor },
            None => first_hasher(),
        }
    }
}

/// Where each hash begins, and an odd factor.
static SECRET: Secret = Secret::new();

#[cold]
fn first_hasher() -> Mixer {
    let made = Mixer::from_seed(seed());
    SECRET.set(made.state, made.factor);
    made
}

/// From what the kernel gives every process when it starts. Unlike
/// getrandom(2) that cannot fail, and is there in a sandbox, too.
fn seed() -> u64 {
    // SAFETY: it only looks something up.
    let random = unsafe { libc::getauxval(libc::AT_RANDOM) } as *const [u64; 2];
    if random.is_null() {
        // An emulator's process: its addresses may be random.
        return scramble((&raw const SECRET).expose_provenance() as u64)
            ^ scramble((&raw const random).expose_provenance() as u64);
    }
    // SAFETY: 16 bytes that are never changed; perhaps not aligned.
    let [first, second] = unsafe { random.read_unaligned() };
    // The C library derives its own secrets from them: this does not reveal
    // those.
    scramble(first) ^ scramble(second.rotate_left(32))
}

/// The last step of splitmix64.
fn scramble(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

/// Multiplies each word by the secret factor, and folds the product.
#[derive(Clone, Copy)]
pub(crate) struct Mixer {
    state: u64,
    factor: u64,
}

impl Mixer {
    fn from_seed(seed: u64) -> Self {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let state = scramble(seed.wrapping_add(STEP));
        let factor = scramble(seed.wrapping_add(STEP.wrapping_mul(2))) | 1;
        Self { state, factor }
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.write_u64(u64::from_ne_bytes(*word));
        }
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        if !rest.is_empty() {
            self.write_u64(u64::from_ne_bytes(last));
        }
    }

    #[inline]
    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    #[inline]
    fn write_u16(&mut self, number: u16) {
        self.write_u64(number.into());
    }

    #[inline]
    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        self.state = fold(self.state ^ number, self.factor);
    }

    #[inline]
    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        // Keys of which only the high bits differ are spread by this.
        fold(self.state, self.factor)
    }
}

#[inline]
fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::Hash;

    fn hash(mixer: Mixer, key: impl Hash) -> u64 {
        let mut mixer = mixer;
        key.hash(&mut mixer);
        mixer.finish()
    }

    /// How many of so many places these hashes take, by the bits that a map
    /// looks at first.
    fn places(hashes: impl Iterator<Item = u64>, bits: u32) -> usize {
        hashes.map(|hash| hash & ((1 << bits) - 1)).collect::<HashSet<_>>().len()
    }

    #[test]
    fn keys_that_collide_under_one_seed_do_not_under_another() {
        let (known, other) = (Mixer::from_seed(1), Mixer::from_seed(2));
        let collide = |key: &u64| hash(known, (*key, 7i16)) & 0xfff == 0;
        let chosen: Vec<u64> = (0..1 << 20).filter(collide).collect();
        assert!(chosen.len() > 200, "{}", chosen.len());
        let taken = places(chosen.iter().map(|key| hash(other, (*key, 7i16))), 12);
        assert!(taken > chosen.len() * 9 / 10, "{taken} of {}", chosen.len());
    }

    #[test]
    fn keys_in_a_row_and_powers_of_two_are_spread() {
        for seed in 0..8 {
            let mixer = Mixer::from_seed(seed);
            for step in (0..16).map(|step| 1u64 << (3 * step)) {
                let hashes = (0..4096).map(|key: u64| hash(mixer, key.wrapping_mul(step)));
                let taken = places(hashes, 12);
                assert!(taken > 4096 / 2, "{taken} of 4096 with seed {seed} and step {step:#x}");
            }
        }
    }

    #[test]
    fn every_byte_of_a_name_counts() {
        let mixer = Mixer::from_seed(3);
        for length in 0..20 {
            let name = vec![b'x'; length];
            let before = hash(mixer, &*name);
            for i in 0..length {
                let mut other = name.clone();
                other[i] = b'y';
                assert_ne!(hash(mixer, &*other), before);
            }
            assert_ne!(hash(mixer, &*[&*name, b"\0"].concat()), before);
        }
    }

    #[test]
    fn all_maps_have_the_same_secret() {
        let hash = || Seeded::new().hash_one("name");
        assert_eq!(hash(), hash());
        assert_eq!(SECRET.get().map(|(_, factor)| factor & 1), Some(1));
    }
}
