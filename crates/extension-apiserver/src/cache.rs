//! A bounded cache of answers that are asked for elsewhere. Those who ask for the same thing at once share one call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// What is asked, hashed: keys take the same little memory whatever a client sends, and tokens are not kept.
pub(crate) type Key = [u8; 32];

/// Makes a key of fields. Lengths are hashed too, so that no two lists of fields run together.
#[derive(Debug, Default)]
pub(crate) struct KeyBuilder(Sha256);

impl KeyBuilder {
    /// Adds a field.
    pub(crate) fn field(&mut self, field: impl AsRef<[u8]>) -> &mut Self {
        let field = field.as_ref();
        self.0.update((field.len() as u64).to_be_bytes());
        self.0.update(field);
        self
    }

    /// Adds a list of fields.
    pub(crate) fn list<T: AsRef<[u8]>>(&mut self, list: &[T]) -> &mut Self {
        self.0.update((list.len() as u64).to_be_bytes());
        for field in list {
            self.field(field);
        }
        self
    }

    /// The key.
    pub(crate) fn build(self) -> Key {
        self.0.finalize().into()
    }
}

/// The cache. It has two generations of answers: when the young one has half the capacity, it becomes the old one,
/// and the one before is dropped. An answer used again becomes young again.
#[derive(Debug)]
pub(crate) struct Cache<V> {
    generations: Mutex<Generations<V>>,
    half: usize,
}

/// An answer and until when it holds; empty while it is asked for.
type Slot<V> = Arc<OnceCell<(V, Instant)>>;

#[derive(Debug)]
struct Generations<V> {
    young: HashMap<Key, Slot<V>>,
    old: HashMap<Key, Slot<V>>,
}

impl<V: Clone> Cache<V> {
    /// A cache of at most `capacity` answers.
    pub(crate) fn new(capacity: usize) -> Self {
        let (young, old) = (HashMap::new(), HashMap::new());
        Self {
            generations: Mutex::new(Generations { young, old }),
            half: capacity.div_ceil(2).max(1),
        }
    }

    /// The answer kept for `key`, or what `ask` brings, kept for as long as that says. An answer to be kept for no
    /// time goes only to those who were waiting for it. Asking goes on when whoever began it goes away: a client that
    /// comes, leaves and comes again is not asked about each time.
    pub(crate) async fn get<F>(&self, key: Key, ask: impl FnOnce() -> F + Send + 'static) -> V
    where
        V: Send + Sync + 'static,
        F: Future<Output = (V, Duration)> + Send + 'static,
    {
        let slot = self.slot(key, Instant::now());
        if let Some((answer, _)) = slot.get() {
            return answer.clone();
        }
        let asking = tokio::spawn(async move {
            let asked = slot.get_or_init(|| async {
                let (answer, keep) = ask().await;
                (answer, Instant::now() + keep)
            });
            asked.await.0.clone()
        });
        match asking.await {
            Ok(answer) => answer,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The process ends.
                Err(_) => std::future::pending().await,
            },
        }
    }

    fn slot(&self, key: Key, now: Instant) -> Slot<V> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |slot: &Slot<V>| slot.get().is_none_or(|(_, until)| now < *until);
        if let Some(slot) = generations.young.get(&key)
            && holds(slot)
        {
            return Arc::clone(slot);
        }
        let slot = generations.old.remove(&key).filter(holds).unwrap_or_default();
        if generations.young.len() >= self.half {
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.young.insert(key, Arc::clone(&slot));
        slot
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const KEEP: Duration = Duration::from_secs(10);

    fn key(name: &str) -> Key {
        let mut key = KeyBuilder::default();
        key.field(name);
        key.build()
    }

    async fn ask(cache: &Cache<usize>, name: &str, calls: &Arc<AtomicUsize>, keep: Duration) -> usize {
        let calls = Arc::clone(calls);
        cache
            .get(key(name), move || async move {
                tokio::task::yield_now().await;
                (calls.fetch_add(1, Ordering::Relaxed) + 1, keep)
            })
            .await
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_kept_for_its_time() {
        let (cache, calls) = (Cache::new(8), Arc::new(AtomicUsize::new(0)));
        assert_eq!(ask(&cache, "a", &calls, KEEP).await, 1);
        tokio::time::advance(KEEP.mul_f64(0.9)).await;
        assert_eq!(ask(&cache, "a", &calls, KEEP).await, 1);
        assert_eq!(ask(&cache, "b", &calls, KEEP).await, 2);
        tokio::time::advance(KEEP.mul_f64(0.1)).await;
        assert_eq!(ask(&cache, "a", &calls, KEEP).await, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_share_one_call_even_if_its_answer_is_not_kept() {
        let (cache, calls) = (Cache::new(8), Arc::new(AtomicUsize::new(0)));
        let shared = tokio::join!(
            ask(&cache, "a", &calls, Duration::ZERO),
            ask(&cache, "a", &calls, Duration::ZERO)
        );
        assert_eq!(shared, (1, 1));
        assert_eq!(ask(&cache, "a", &calls, Duration::ZERO).await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn asking_goes_on_when_the_one_who_began_it_goes_away() {
        let (cache, calls) = (Cache::new(8), Arc::new(AtomicUsize::new(0)));
        let slow = Arc::clone(&calls);
        let gone = cache.get(key("a"), move || async move {
            tokio::time::sleep(KEEP * 2).await;
            (slow.fetch_add(1, Ordering::Relaxed) + 1, KEEP)
        });
        assert!(tokio::time::timeout(KEEP, gone).await.is_err());
        assert_eq!(ask(&cache, "a", &calls, KEEP).await, 1);
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn it_never_holds_more_than_its_capacity_and_keeps_what_is_used() {
        let (cache, calls) = (Cache::new(8), Arc::new(AtomicUsize::new(0)));
        for name in 0..100 {
            ask(&cache, &format!("{name}"), &calls, KEEP).await;
            ask(&cache, "often", &calls, KEEP).await;
            let generations = cache.generations.lock().unwrap();
            assert!(generations.young.len() + generations.old.len() <= 8);
        }
        assert_eq!(calls.load(Ordering::Relaxed), 101);
    }

    #[test]
    fn fields_do_not_run_together() {
        let keys = [&["ab", "c"][..], &["a", "bc"], &["abc"], &["abc", ""]].map(|fields| {
            let mut key = KeyBuilder::default();
            key.list(fields);
            key.build()
        });
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(key));
        }
    }
}
