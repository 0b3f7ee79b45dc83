//! Randomness, passed in wherever a value must not be guessed or a choice must be spread.
//!
//! Binaries use [`SystemRandom`]. A simulation uses [`SeededRandom`], which gives the same values for the same
//! seed on every machine and is good for nothing else: its output can be predicted.

use std::sync::Arc;
use std::sync::Mutex;

/// A source of random bytes.
pub trait Random: Send + Sync + 'static {
    /// Fills `out` with random bytes.
    fn fill(&self, out: &mut [u8]);

    /// A random number over the whole range of `u64`.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// Randomness shared by the parts of a daemon.
pub type SharedRandom = Arc<dyn Random>;

/// The generator of the crypto library, seeded by the operating system; fit for tokens and secrets.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, out: &mut [u8]) {
        // Without randomness no token and no Message-ID may be handed out. The library blocks until the kernel
        // is seeded, so a failure here means a broken machine; the panic ends only the request that asked.
        aws_lc_rs::rand::fill(out).expect("the operating system has no randomness");
    }
}

/// A reproducible generator (SplitMix64) for simulations and tests.
#[derive(Debug)]
pub struct SeededRandom {
    state: Mutex<u64>,
}

impl SeededRandom {
    /// A generator whose whole sequence follows from `seed`.
    pub fn new(seed: u64) -> SeededRandom {
        SeededRandom { state: Mutex::new(seed) }
    }

    fn step(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = *state;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }
}

impl Random for SeededRandom {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let bytes = self.step().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeded_sequence_is_fixed() {
        // First outputs of SplitMix64 for seed 1234567 as published with the algorithm.
        let random = SeededRandom::new(1_234_567);
        assert_eq!(random.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(random.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn system_values_differ() {
        let mut bytes = [0_u8; 33];
        SystemRandom.fill(&mut bytes);
        assert_ne!(bytes, [0; 33]);
        assert_ne!(SystemRandom.next_u64(), SystemRandom.next_u64());
    }
}
