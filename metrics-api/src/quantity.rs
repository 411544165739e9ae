//! Usage as apimachinery's canonical `resource.Quantity` prints it (k8s.io/apimachinery/pkg/api/resource): the
//! largest suffix that leaves no fraction.

use std::fmt;

/// CPU in nanocores, printed in decimal suffixes: `12345678n`, `250m`, `2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpu(pub u64);

/// Memory in bytes, printed in binary suffixes: `12345Ki`, `20Mi`. As apimachinery does, a value under 1024
/// bytes is printed in decimal ones (`512`, `1k`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Memory(pub u64);

const NANO: [&str; 9] = ["n", "u", "m", "", "k", "M", "G", "T", "P"];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(f, self.0, 1000, &NANO)
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1000 => f.write_str("1k"),
            bytes => print(f, bytes, 1024, &BINARY),
        }
    }
}

fn print(f: &mut fmt::Formatter<'_>, mut value: u64, base: u64, suffixes: &[&str]) -> fmt::Result {
    if value == 0 {
        return f.write_str("0");
    }
    let mut suffixes = suffixes.iter();
    let mut suffix = suffixes.next().copied().unwrap_or_default();
    while value.is_multiple_of(base) {
        let Some(larger) = suffixes.next() else { break };
        value /= base;
        suffix = larger;
    }
    write!(f, "{value}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_prints_as_the_canonical_quantity() {
        let cases = [
            (0, "0"),
            (1, "1n"),
            (169_415_881, "169415881n"),
            (12_000, "12u"),
            (5_000_000, "5m"),
            (250_000_000, "250m"),
            (2_000_000_000, "2"),
            (2_000_000_000_000, "2k"),
            (u64::MAX, "18446744073709551615n"),
        ];
        for (nanocores, printed) in cases {
            assert_eq!(Cpu(nanocores).to_string(), printed);
        }
    }

    #[test]
    fn memory_prints_as_the_canonical_quantity() {
        let cases = [
            (0, "0"),
            (512, "512"),
            (1000, "1k"),
            (1024, "1Ki"),
            (1500, "1500"),
            (31_236_096, "30504Ki"),
            (20 << 20, "20Mi"),
            (1 << 63, "8Ei"),
        ];
        for (bytes, printed) in cases {
            assert_eq!(Memory(bytes).to_string(), printed);
        }
    }
}
