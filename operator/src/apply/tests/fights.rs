//! Somebody else who keeps writing what is ours, and what is no fight.

use super::*;

/// Somebody who wants another selector.
fn meddle(fake: &Fake) {
    let mut service = fake.get(SERVICE).unwrap();
    service["spec"]["selector"] = json!({"app": "theirs"});
    service["metadata"]["managedFields"] = json!([
        {"manager": "metricsstack-operator", "operation": "Apply", "time": "2026-11-24T05:00:00Z", "fieldsV1": {}},
        {"manager": "meddler", "operation": "Update", "time": "2026-11-24T05:00:01Z",
            "fieldsV1": {"f:spec": {"f:selector": {"f:app": {}}}}},
    ]);
    fake.put(SERVICE, service);
}

#[tokio::test(start_paused = true)]
async fn a_fight_is_named_and_not_fought() {
    let (fake, objects) = (Fake::default(), wanted(Registration::AwaitEndpoint));
    let mut hands = Applier::new(fake.client(), "ns");
    hands.apply(&objects).await;
    fake.writes();
    let mut writes = 0;
    let mut said = Vec::new();
    for _ in 0..300 {
        meddle(&fake);
        let applied = hands.apply(&objects).await;
        assert_eq!(applied.errors, [""; 0]);
        writes += fake.writes().len();
        said.push(applied.contests);
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    // Five repairs, and one each after 30, 60 and 120 s; a repair is two patches.
    assert_eq!(writes, 2 * (5 + 3));
    let contest = Contest {
        object: "Service ns/metrics-api".to_owned(),
        by: "the field manager \"meddler\" (Update, within seconds)".to_owned(),
    };
    assert!(
        said[4..].iter().all(|said| *said == [contest.clone()]),
        "{said:?}"
    );
    assert!(said[..4].iter().all(Vec::is_empty));

    // The other one has gone: the object is put right, and after a while there is nothing to tell.
    tokio::time::advance(Duration::from_mins(10)).await;
    assert_eq!(hands.apply(&objects).await.contests.len(), 0);
    let selector = fake.get(SERVICE).unwrap()["spec"]["selector"].clone();
    assert_eq!(selector["app.kubernetes.io/name"], "metrics-api");
}

/// Objects of which the serving certificate has been made anew. Each second time what was there before stays beside it.
fn renewed(turn: u32) -> Objects {
    let mut objects = wanted(Registration::AwaitEndpoint);
    let serving = objects
        .base
        .iter_mut()
        .find(|object| object.name() == names::SERVING_SECRET);
    let data = &mut serving.unwrap().object.data["data"];
    data["tls.crt"] = json!(format!("bmV3IDEyMzQ{turn}"));
    if turn % 2 == 1 {
        data["previous.crt"] = json!("b2xk");
    }
    objects
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_somebody_keeps_spoiling_is_a_fight_though_each_is_another() {
    let fake = Fake::default();
    let mut hands = Applier::new(fake.client(), "ns");
    hands.apply(&renewed(0)).await;
    fake.writes();
    let (mut writes, mut contests) = (0, Vec::new());
    for turn in 1..=100 {
        let mut secret = fake.get(SERVING).unwrap();
        secret["data"]["tls.crt"] = json!("c3BvaWxlZA==");
        fake.put(SERVING, secret);
        let applied = hands.apply(&renewed(turn)).await;
        assert_eq!((applied.errors, applied.repaired), (vec![], vec![]));
        writes += fake
            .writes()
            .iter()
            .filter(|write| write.ends_with(SERVING))
            .count();
        contests.push(applied.contests.len());
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    // Five, and one each after 30 and 60 s.
    assert_eq!(writes, 5 + 2);
    assert!(
        contests
            .iter()
            .enumerate()
            .all(|(turn, found)| *found == usize::from(turn >= 4)),
        "{contests:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_is_as_it_shall_be_is_used_though_it_was_fought_over() {
    let (fake, objects) = (Fake::default(), wanted(Registration::AwaitEndpoint));
    let mut hands = Applier::new(fake.client(), "ns");
    hands.apply(&objects).await;
    let spoil = || {
        let mut secret = fake.get(CA).unwrap();
        secret["data"]["tls.crt"] = json!("c3BvaWxlZA==");
        fake.put(CA, secret);
    };
    for _ in 0..5 {
        spoil();
        assert!(hands.apply(&objects).await.authority);
    }
    let applied = hands.apply(&objects).await;
    assert_eq!(applied.contests.len(), 1);
    assert!(applied.authority && applied.certificates, "{applied:?}");
    spoil();
    let applied = hands.apply(&objects).await;
    assert!(!applied.authority && !applied.certificates, "{applied:?}");
}

#[tokio::test(start_paused = true)]
async fn renewals_are_no_fight() {
    let fake = Fake::default();
    let mut hands = Applier::new(fake.client(), "ns");
    for turn in 0..20 {
        assert_eq!(hands.apply(&renewed(turn)).await.contests, []);
    }
}

#[tokio::test(start_paused = true)]
async fn another_plan_is_no_fight() {
    let fake = Fake::default();
    let mut hands = Applier::new(fake.client(), "ns");
    for replicas in [1, 2].into_iter().cycle().take(20) {
        let mut plan = planned(&json!({}), &Observed::default()).unwrap();
        plan.metrics_api.replicas = replicas;
        assert_eq!(hands.apply(&objects(&plan)).await.contests, []);
    }
}
