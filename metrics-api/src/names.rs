//! Values kept once. Pod names stand in the pod index and in the store, container names and labels in thousands of
//! pods: each has one allocation, shared by reference count.

use std::{
    borrow::Borrow,
    collections::HashSet,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

/// A shared text.
pub type Name = Arc<str>;
/// The set of all names in use.
pub type Names = Interner<str>;

/// Below this many values no sweep is worth its time.
const SWEEP_AT_LEAST: usize = 1024;

/// The set of all values in use. Clones share it.
#[derive(Debug)]
pub struct Interner<T: ?Sized>(Arc<Mutex<Inner<T>>>);

#[derive(Debug)]
struct Inner<T: ?Sized> {
    values: HashSet<Arc<T>>,
    kept_by_last_sweep: usize,
}

impl<T: ?Sized + Eq + Hash> Interner<T> {
    /// The shared copy of `value`.
    #[must_use]
    pub fn intern<'a>(&self, value: &'a T) -> Arc<T>
    where
        Arc<T>: From<&'a T> + Borrow<T>,
    {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = inner.values.get(value) {
            return Arc::clone(shared);
        }
        // Sweeping when the set has doubled keeps the cost per value constant.
        if inner.values.len() >= SWEEP_AT_LEAST.max(inner.kept_by_last_sweep * 2) {
            inner.values.retain(|shared| Arc::strong_count(shared) > 1);
            inner.values.shrink_to_fit();
            inner.kept_by_last_sweep = inner.values.len();
        }
        let shared: Arc<T> = Arc::from(value);
        inner.values.insert(Arc::clone(&shared));
        shared
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().unwrap().values.len()
    }
}

impl<T: ?Sized> Clone for Interner<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: ?Sized> Default for Interner<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Inner {
            values: HashSet::new(),
            kept_by_last_sweep: 0,
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_one_allocation() {
        let names = Names::default();
        assert!(Arc::ptr_eq(
            &names.intern("istio-proxy"),
            &names.clone().intern("istio-proxy")
        ));
        assert!(!Arc::ptr_eq(&names.intern("a"), &names.intern("b")));
        let lists: Interner<[Name]> = Interner::default();
        assert!(Arc::ptr_eq(
            &lists.intern(&[names.intern("a")]),
            &lists.intern(&[names.intern("a")])
        ));
    }

    #[test]
    fn values_that_nobody_holds_do_not_pile_up() {
        let names = Names::default();
        let kept = names.intern("kept");
        for i in 0..100_000 {
            let _ = names.intern(&format!("pod-{i}"));
        }
        assert!(names.len() <= SWEEP_AT_LEAST, "{} names", names.len());
        assert!(Arc::ptr_eq(&kept, &names.intern("kept")));
    }
}
