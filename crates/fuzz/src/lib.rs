//! Runs decoders of outside bytes over known inputs and over changes of them. For tests only.
//!
//! A decoder is tested by one function from bytes to assertions. [`Target::holds`] runs it over every input;
//! [`Target::changes_hold`] over changes of them, for a moment or, when `FUZZ_SECONDS` is set, for that long or for
//! 10 million inputs, whichever is first. What finds something is written to a file, to be kept in the corpus.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "these are the assertions of tests"
)]

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::panic::catch_unwind;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long changes are tried when nothing else is asked for.
const MOMENT: Duration = Duration::from_millis(300);
const MOST_INPUTS: u64 = 10_000_000;
const LARGEST_INPUT: usize = 1 << 16;

/// A decoder, with what it is tried with.
pub struct Target<'a> {
    /// Its name.
    pub name: &'a str,
    /// Inputs that it is known to take, or to refuse.
    pub inputs: Vec<Vec<u8>>,
    /// Pieces that mean something to it.
    pub fragments: &'a [&'a str],
    /// Panics if something does not hold for the bytes.
    pub one: fn(&[u8]),
}

/// The content of each file of a folder, in the order of their names. Panics if there is none.
#[must_use]
pub fn corpus(folder: &Path) -> Vec<Vec<u8>> {
    let files = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
        .into_iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

impl Target<'_> {
    /// Panics if something does not hold for one of the inputs.
    pub fn holds(&self) {
        for (at, bytes) in self.inputs.iter().enumerate() {
            assert!(
                catch_unwind(|| (self.one)(bytes)).is_ok(),
                "{}: input {at}: {}",
                self.name,
                String::from_utf8_lossy(bytes)
            );
        }
    }

    /// Panics if something does not hold for one of many changes of the inputs.
    pub fn changes_hold(&self) {
        let asked = std::env::var("FUZZ_SECONDS").ok();
        let limit = asked.as_deref().map_or(MOMENT, |seconds| {
            Duration::from_secs(seconds.parse().expect("FUZZ_SECONDS is a number of seconds"))
        });
        // It needs no seed to be kept: what is found is kept as a file.
        let mut dice = Dice(RandomState::new().hash_one(self.name));
        let (begun, mut inputs) = (Instant::now(), 0_u64);
        while begun.elapsed() < limit && inputs < MOST_INPUTS {
            let bytes = dice.change(&self.inputs, self.fragments);
            inputs += 1;
            if catch_unwind(|| (self.one)(&bytes)).is_err() {
                let found = std::env::temp_dir().join(format!("fuzz-{}-{inputs}", self.name));
                std::fs::write(&found, &bytes).unwrap();
                panic!("{}: keep {} in the corpus", self.name, found.display());
            }
        }
        println!("{}: {inputs} inputs in {:.1?}", self.name, begun.elapsed());
    }
}

/// A generator of numbers.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        // splitmix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % end.max(1) as u64).unwrap()
    }

    /// One of the inputs, changed in a few places.
    fn change(&mut self, inputs: &[Vec<u8>], fragments: &[&str]) -> Vec<u8> {
        let mut bytes = inputs[self.below(inputs.len())].clone();
        for _ in 0..=self.below(6) {
            let (from, to) = (self.below(bytes.len() + 1), self.below(bytes.len() + 1));
            let (from, to) = (from.min(to), from.max(to));
            match self.below(6) {
                0 => drop(bytes.drain(from..to.min(from + 40))),
                1 => {
                    let piece = bytes[from..to].to_vec();
                    let at = self.below(bytes.len() + 1);
                    bytes.splice(at..at, piece);
                }
                2 => {
                    let other = &inputs[self.below(inputs.len())];
                    let start = self.below(other.len() + 1);
                    let piece: Vec<_> = other[start..].iter().copied().take(80).collect();
                    bytes.splice(from..from, piece);
                }
                3 => {
                    let fragment = fragments[self.below(fragments.len())];
                    bytes.splice(from..from, fragment.bytes());
                }
                _ => {
                    if let Some(byte) = bytes.get_mut(from) {
                        *byte = u8::try_from(self.below(256)).unwrap();
                    }
                }
            }
        }
        bytes.truncate(LARGEST_INPUT);
        bytes
    }
}
