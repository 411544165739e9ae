//! Ten years of a server's certificates, with crashes, slow clients, slow servers and a clock that is off: at no moment
//! does a server show what a client does not trust.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use proptest::prelude::*;
use tokio::time::Instant;

use super::tests::kept;
use super::*;

const MINIMUM_AGE: Duration = Duration::from_mins(1);
/// The slowest that a client sees a new bundle, and a server a new certificate.
const CLIENT_LAG: u64 = 40;
const SERVER_LAG: u64 = 120;
/// The longest that nothing is done, in seconds.
const AWAY: u64 = 604_800;

fn server() -> Server {
    Server {
        name: "front".to_owned(),
        dns_names: vec!["front.shop.svc".to_owned()],
    }
}

/// What happens at one step.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// After how many seconds. None is longer than the operator is ever away.
    after: u64,
    /// How many of the three writes are made: the authority, the serving certificate, the registration.
    writes: u8,
    /// Whether the operator starts anew after that, and forgets.
    restarts: bool,
    /// Seconds that its clock is off.
    skew: i64,
    /// Whether the authority's Secret is lost, the other one, or none.
    loses: u8,
}

fn step() -> impl Strategy<Value = Step> {
    // A turn every few seconds while something is under way; hours and days of quiet.
    let after = prop_oneof![6 => 1_u64..30, 3 => 30_u64..300, 2 => 3_600_u64..AWAY];
    let writes = prop_oneof![4 => Just(3_u8), 1 => 0_u8..3];
    (
        after,
        writes,
        prop::bool::weighted(0.1),
        -200_i64..200,
        prop_oneof![40 => Just(0_u8), 1 => 1_u8..3],
    )
        .prop_map(|(after, writes, restarts, skew, loses)| Step {
            after,
            writes,
            restarts,
            skew,
            loses,
        })
}

/// Values as they were over time: what is read late is an older one.
struct Late<T>(Vec<(u64, T)>);

impl<T: PartialEq> Late<T> {
    fn put(&mut self, at: u64, value: T) {
        if self.0.last().is_none_or(|(_, last)| *last != value) {
            self.0.push((at, value));
        }
    }

    /// Everything that may be seen at `now` by somebody who is at most `lag` behind.
    fn seen(&self, now: u64, lag: u64) -> impl Iterator<Item = &T> {
        let oldest = self
            .0
            .iter()
            .rposition(|(at, _)| at + lag <= now)
            .unwrap_or_default();
        self.0.get(oldest..).into_iter().flatten().map(|(_, value)| value)
    }
}

struct World {
    /// Seconds since the start.
    now: u64,
    ca: Option<Secret>,
    leaf: Option<Secret>,
    /// The bundle in the registration.
    bundle: Late<String>,
    /// The certificate in the Secret that servers mount, while there is one.
    mounted: Late<KeyPair>,
    observations: Observations,
    start: Instant,
    lifetimes: Lifetimes,
    authorities: BTreeSet<Vec<u8>>,
    /// Whether one authority is taking over from another.
    rotates: bool,
    /// When a turn last made all its writes.
    done: u64,
}

impl World {
    fn time(&self, skew: i64) -> Timestamp {
        let seconds = 1_790_000_000 + i64::try_from(self.now).unwrap() + skew;
        Timestamp::from_second(seconds).unwrap()
    }

    /// What any client that is behind makes of what any server that is behind shows.
    fn check(&self) -> Result<(), TestCaseError> {
        for bundle in self.bundle.seen(self.now, CLIENT_LAG) {
            let trusted: Vec<_> = authority::read(bundle, self.time(0))
                .iter()
                .map(|authority| authority.certificate().clone())
                .collect();
            for leaf in self.mounted.seen(self.now, SERVER_LAG) {
                let verified = fit::verify(leaf, &trusted, &server(), self.time(0));
                prop_assert_eq!(verified, Ok(()), "after {} s", self.now);
            }
        }
        Ok(())
    }

    fn turn(&mut self, step: Step) -> Timestamp {
        let now = self.start + Duration::from_secs(self.now);
        let published = self.bundle.0.last().map(|(_, bundle)| bundle.clone());
        let published = published.unwrap_or_default();
        let stored = fit::read(self.leaf.as_ref(), ("tls.crt", "tls.key")).ok();
        let served: Vec<_> = self.mounted.seen(self.now, SERVER_LAG).collect();
        let served = stored.filter(|stored| served == [stored]);
        let der = served.as_ref().map(|leaf| leaf.certificate().as_ref());
        self.observations.served(der, now);
        let usage = self
            .observations
            .usage(published.clone(), MINIMUM_AGE, now, self.time(step.skew));
        let secrets = Stored {
            ca: self.ca.as_ref(),
            leaf: self.leaf.as_ref(),
        };
        let time = self.time(step.skew);
        let judgement = judge(secrets, &usage, &server(), self.lifetimes, time);
        let made = issue(judgement, &server(), self.lifetimes, time).unwrap();
        let (ca, leaf) = kept(&made);
        if step.writes > 0 {
            self.ca = Some(ca);
            let signer = made.ca.as_ref().unwrap().certificate();
            self.authorities.insert(signer.to_vec());
        }
        if step.writes > 1 {
            self.leaf = Some(leaf);
            self.mounted.put(self.now, made.leaf.clone());
        }
        if step.writes > 2 {
            self.bundle.put(self.now, made.bundle());
            let known: Vec<_> = self.bundle.seen(self.now, CLIENT_LAG).collect();
            let all = known == [&made.bundle()];
            self.observations.acknowledged(all.then(|| made.bundle()), now);
        }
        if step.restarts {
            self.observations = Observations::default();
        }
        // Two faults at a time are more than can be survived: whoever has neither key nor certificate has to show what
        // nobody trusts yet.
        if step.writes > 2 && !made.rotates() {
            match step.loses {
                1 => self.ca = None,
                2 => self.leaf = None,
                _ => {}
            }
        }
        self.rotates = made.rotates();
        if step.writes > 2 {
            self.done = self.now;
        }
        made.renew_at().unwrap()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn what_is_served_is_always_trusted(
        steps in prop::collection::vec(step(), 120..400),
        ca_days in prop_oneof![Just(3650_u64), 200_u64..800],
        leaf_days in 30_u64..120,
    ) {
        let day = Duration::from_hours(24);
        let lifetimes = Lifetimes {
            ca: day * u32::try_from(ca_days).unwrap(),
            leaf: day * u32::try_from(leaf_days).unwrap(),
        };
        let mut world = World {
            now: 0,
            ca: None,
            leaf: None,
            bundle: Late(Vec::new()),
            mounted: Late(Vec::new()),
            observations: Observations::default(),
            start: Instant::now(),
            lifetimes,
            authorities: BTreeSet::new(),
            rotates: false,
            done: 0,
        };
        let first = Step { after: 0, writes: 3, restarts: false, skew: 0, loses: 0 };
        world.turn(first);
        let ten_years = 3650 * 24 * 3600;
        let mut steps = steps.into_iter().cycle();
        let mut turns = 0;
        while world.now < ten_years && turns < 10_000 {
            turns += 1;
            let step = steps.next().unwrap();
            let before = world.now;
            // Whoever is away for days again and again, in all or amid a rotation, cannot renew.
            let away = if world.rotates { 300 } else { (world.done + AWAY).saturating_sub(world.now).max(1) };
            world.now += step.after.min(away);
            world.check()?;
            let due = world.turn(step);
            world.check()?;
            // Where nothing is under way, the time until the next renewal is skipped but for some days.
            let quiet = world.observations.usage(String::new(), MINIMUM_AGE,
                world.start + Duration::from_secs(world.now), world.time(0)).confirmed.is_some();
            if quiet && !world.rotates && step.writes == 3 && step.loses == 0 && world.now - before < 30 {
                let left = due.duration_since(world.time(0)) - SignedDuration::from_hours(6);
                world.now += u64::try_from(left.as_secs()).unwrap_or(0);
                world.done = world.now;
            }
        }
        prop_assert!(world.now >= ten_years, "{} s in {turns} turns", world.now);
        let authorities = world.authorities.len();
        prop_assert!(authorities > if ca_days < 800 { 4 } else { 1 }, "{authorities} authorities");
    }
}
