//! What happened lately.

use std::collections::VecDeque;

/// The last so many things by version.
#[derive(Debug)]
pub struct History<T> {
    entries: VecDeque<(u64, T)>,
    capacity: usize,
    /// The version after which everything is known.
    known_after: u64,
}

impl<T> History<T> {
    /// A history of what comes after `version`, of at most so many things.
    #[must_use]
    pub fn new(version: u64, capacity: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            capacity: capacity.max(1),
            known_after: version,
        }
    }

    /// Adds what happened with that version, which is greater than all before.
    pub fn push(&mut self, version: u64, entry: T) {
        if self.entries.len() >= self.capacity
            && let Some((oldest, _)) = self.entries.pop_front()
        {
            self.known_after = oldest;
        }
        self.entries.push_back((version, entry));
    }

    /// The version after which everything is known.
    #[must_use]
    pub fn known_after(&self) -> u64 {
        self.known_after
    }

    /// What came after `version`; `None` if some of it is not known any more.
    #[must_use]
    pub fn after(&self, version: u64) -> Option<impl Iterator<Item = (u64, &T)>> {
        if version < self.known_after {
            return None;
        }
        let start = self.entries.partition_point(|(at, _)| *at <= version);
        Some(self.entries.range(start..).map(|(at, entry)| (*at, entry)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_forgets_the_oldest_and_says_so() {
        let mut history = History::new(10, 2);
        let after = |history: &History<char>, version| {
            history
                .after(version)
                .map(|entries| entries.map(|(_, entry)| *entry).collect::<String>())
        };
        assert_eq!(after(&history, 9), None);
        assert_eq!(after(&history, 10).as_deref(), Some(""));
        for (version, entry) in [(11, 'a'), (13, 'b'), (14, 'c')] {
            history.push(version, entry);
        }
        assert_eq!(after(&history, 10), None);
        assert_eq!(after(&history, 11).as_deref(), Some("bc"));
        assert_eq!(after(&history, 12).as_deref(), Some("bc"));
        assert_eq!(after(&history, 14).as_deref(), Some(""));
        assert_eq!(after(&history, 99).as_deref(), Some(""));
    }
}
