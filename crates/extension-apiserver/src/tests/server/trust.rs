//! Who is believed, on which connection.

use std::time::SystemTime;

use super::*;

#[tokio::test]
async fn the_front_proxy_is_answered_by_both_versions_of_http() {
    let world = World::new();
    let running = world.start().await;
    for http in [Http::One, Http::Two] {
        let mut connection = world.connect(&running, Some(&world.proxy()), http).await;
        let answer = connection.get(THINGS, &JANE).await;
        assert_eq!(answer.code, 200, "{}", answer.text);
        assert_eq!(answer.json()["items"][0]["metadata"]["name"], "one");
        let missing = connection.get("/apis/example.dev/v1/things/two", &JANE).await;
        assert_eq!(missing.code, 404, "{}", missing.text);
        let head = connection
            .send(Method::HEAD, "/readyz", &JANE, Bytes::new())
            .await
            .unwrap();
        assert_eq!((head.code, head.text.as_str()), (200, ""));
        let joe = connection.get(THINGS, &[("x-remote-user", "joe")]).await;
        assert_eq!(joe.code, 403);
        assert!(joe.message().contains("User \"joe\" cannot list"), "{}", joe.text);
    }
    let shown = world.front_proxies.certificates(DEADLINE, SystemTime::now());
    let names: Vec<_> = shown.iter().map(|shown| shown.common_name.as_str()).collect();
    assert_eq!(names, ["front-proxy-client"], "{shown:?}");
    assert!(shown[0].not_before < SystemTime::now() && SystemTime::now() < shown[0].not_after);
    let asked = world.cluster.reviews("SubjectAccessReview");
    assert_eq!(
        asked.len(),
        3,
        "the second connection is answered from the cache: {asked:?}"
    );
    assert_eq!(
        asked[0]["spec"]["groups"],
        serde_json::json!(["devs", "system:authenticated"])
    );
}

#[tokio::test]
async fn forged_headers_without_a_certificate_are_anonymous() {
    let world = World::new();
    let running = world.start().await;
    for http in [Http::One, Http::Two] {
        let mut connection = world.connect(&running, None, http).await;
        for headers in [&JANE[..], &[]] {
            let answer = connection.get(THINGS, headers).await;
            assert_eq!((answer.code, answer.message().as_str()), (403, FORBIDDEN));
            assert_eq!(answer.json()["reason"], "Forbidden");
        }
        let token = [("authorization", "Bearer token-jane"), ("x-remote-user", "root")];
        assert_eq!(connection.get(THINGS, &token).await.code, 200);
        assert_eq!(connection.get("/readyz", &[]).await.code, 200);
        let bad = connection
            .get(THINGS, &[("authorization", "Bearer nobody")])
            .await;
        assert_eq!((bad.code, bad.message().as_str()), (401, "Unauthorized"));
    }
    let users: Vec<_> = world
        .cluster
        .reviews("SubjectAccessReview")
        .into_iter()
        .map(|review| review["spec"]["user"].clone())
        .collect();
    assert_eq!(users, ["system:anonymous", "jane"]);
    assert_eq!(world.cluster.reviews("TokenReview").len(), 2);
}

#[tokio::test]
async fn a_certificate_that_proves_nothing_is_refused_unless_a_token_comes_too() {
    let world = World::new();
    let running = world.start().await;
    let past = "2021-01-01T00:00:00Z".parse().unwrap();
    for (leaf, fault) in [
        // Of the same name, but another key.
        (
            Authority::new("front-proxy-ca").client("front-proxy-client"),
            FrontProxyFault::UnknownAuthority,
        ),
        (
            world.proxies.leaf("front-proxy-client").ends(past).client(),
            FrontProxyFault::Expired,
        ),
        (world.proxies.client("somebody"), FrontProxyFault::NameNotAllowed),
        (
            world.proxies.leaf("front-proxy-client").server(),
            FrontProxyFault::WrongUsage,
        ),
    ] {
        let mut connection = world.connect(&running, Some(&leaf), Http::Two).await;
        let token = [JANE[0], ("authorization", "Bearer token-jane")];
        assert_eq!(connection.get(THINGS, &token).await.code, 200);
        let answer = connection.get(THINGS, &JANE).await;
        assert_eq!((answer.code, answer.message().as_str()), (401, "Unauthorized"));
        let refusal = world.front_proxies.last_refusal().unwrap();
        assert_eq!(refusal.fault, fault, "{}", refusal.message);
    }
    let admin = world
        .clients
        .leaf("admin")
        .organization("system:masters")
        .client();
    let mut connection = world.connect(&running, Some(&admin), Http::One).await;
    assert_eq!(connection.get(THINGS, &[]).await.code, 200);
}

#[tokio::test]
async fn a_certificate_without_its_key_does_not_pass_the_handshake() {
    let world = World::new();
    let running = world.start().await;
    let proxy = world.proxy();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let stolen = with_key(&proxy, &world.proxies.client("thief"));
        // In TLS 1.3 the client is done before the server has looked at its certificate, so it may only learn of the
        // refusal when it asks for something.
        if let Ok(mut connection) = world.dial_by(version, &running, Some(stolen), Http::One).await {
            let answer = connection.send(Method::GET, THINGS, &JANE, Bytes::new()).await;
            assert!(answer.is_err(), "answered {:?}", answer.map(|answer| answer.code));
        }
        assert!(world.cluster.reviews("SubjectAccessReview").is_empty());
    }
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let own = world
            .dial_by(version, &running, Some(resolver(&proxy)), Http::Two)
            .await;
        assert_eq!(own.unwrap().get(THINGS, &JANE).await.code, 200);
    }
}

#[tokio::test]
async fn an_open_connection_is_refused_once_its_authority_is_gone() {
    let world = World::new();
    let running = world.start().await;
    let mut open = world.connect(&running, Some(&world.proxy()), Http::Two).await;
    assert_eq!(open.get(THINGS, &JANE).await.code, 200);

    let next = Authority::new("next");
    // A broken update changes nothing.
    let mut broken = published(None, Some(&next));
    broken.insert("requestheader-allowed-names".to_owned(), "[".to_owned());
    world.cluster.publish(Ok(broken));
    world.cluster.publish(Ok(published(None, Some(&next))));
    let refused = async {
        loop {
            match open.send(Method::GET, THINGS, &JANE, Bytes::new()).await {
                Ok(answer) if answer.code == 200 => tokio::task::yield_now().await,
                // What comes before the connection is closed is refused.
                Ok(answer) => assert_eq!(answer.code, 401, "{}", answer.text),
                Err(_) => return,
            }
        }
    };
    tokio::time::timeout(DEADLINE, refused).await.unwrap();
    let newer = next.client("front-proxy-client");
    let mut again = world.connect(&running, Some(&newer), Http::Two).await;
    assert_eq!(again.get(THINGS, &JANE).await.code, 200);
}

#[tokio::test]
async fn an_idle_connection_is_closed_when_its_authority_goes_so_that_no_request_is_lost() {
    let world = World::new();
    let running = world.start().await;
    let mut open = Vec::new();
    for http in [Http::One, Http::Two] {
        for leaf in [Some(world.proxy()), None] {
            let mut connection = world.connect(&running, leaf.as_ref(), http).await;
            connection.get("/readyz", &JANE).await;
            open.push((leaf.is_some(), connection));
        }
    }
    let next = Authority::new("next");
    world.cluster.publish(Ok(published(None, Some(&next))));
    for (with_certificate, connection) in &mut open {
        if *with_certificate {
            let closed = async {
                while !connection.is_closed() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(DEADLINE, closed).await.unwrap();
        } else {
            assert_eq!(connection.get("/readyz", &[]).await.code, 200);
        }
    }
}

#[tokio::test]
async fn acting_as_somebody_else_is_for_kube_apiserver_to_allow() {
    let world = World::new();
    let running = world.start().await;
    let mut connection = world.connect(&running, Some(&world.proxy()), Http::Two).await;
    let headers = [JANE[0], ("impersonate-user", "root")];
    let answer = connection.get(THINGS, &headers).await;
    assert_eq!(answer.code, 403);
    assert!(
        answer
            .message()
            .contains("header impersonate-user is not understood here"),
        "{}",
        answer.text
    );
}

#[tokio::test]
async fn an_authority_newer_than_the_watch_costs_no_request() {
    let world = World::new();
    world.cluster.deafen();
    let running = world.start().await;
    let next = Authority::new("next");
    world.cluster.publish(Ok(published(None, Some(&next))));
    let newer = next.client("front-proxy-client");
    let mut connection = world.connect(&running, Some(&newer), Http::Two).await;
    assert_eq!(connection.get(THINGS, &JANE).await.code, 200);
    // The one before is refused then, though the watch has said nothing.
    let mut old = world.connect(&running, Some(&world.proxy()), Http::Two).await;
    assert_eq!(old.get(THINGS, &JANE).await.code, 401);
}

#[tokio::test]
async fn files_may_say_whom_to_trust_without_the_cluster() {
    let world = World::new();
    world.cluster.publish(Err((403, "may not")));
    std::fs::write(world.path("proxy-ca.crt"), world.proxies.pem()).unwrap();
    let authorities = Authorities {
        front_proxy: Some(FrontProxyFiles::new(world.path("proxy-ca.crt"))),
        skip_lookup: true,
        ..Authorities::default()
    };
    let running = start(world.builder().authorities(authorities.clone())).await;
    let mut proxy = world.connect(&running, Some(&world.proxy()), Http::Two).await;
    assert_eq!(proxy.get(THINGS, &JANE).await.code, 200);
    assert_eq!(proxy.get("/readyz", &JANE).await.code, 200);
    let admin = world.clients.client("admin");
    let mut admin = world.connect(&running, Some(&admin), Http::Two).await;
    assert_eq!(admin.get(THINGS, &[]).await.code, 401);

    // A new authority in the file is seen as soon as somebody comes with it.
    let next = Authority::new("next");
    std::fs::write(world.path("proxy-ca.crt"), next.pem()).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let mut newer = world
        .connect(&running, Some(&next.client("any")), Http::Two)
        .await;
    assert_eq!(newer.get(THINGS, &JANE).await.code, 200);

    std::fs::remove_file(world.path("proxy-ca.crt")).unwrap();
    let address = "127.0.0.1:0".parse().unwrap();
    let error = world
        .builder()
        .authorities(authorities)
        .bind(address)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("proxy-ca.crt"), "{error}");
}

#[tokio::test]
async fn clusters_that_are_named_apart_are_asked_apart() {
    let world = World::new();
    let apart = || Cluster::new(Ok(published(Some(&world.clients), Some(&world.proxies))));
    let (who, what) = (apart(), apart());
    world.cluster.publish(Err((403, "nobody is to ask here")));
    let builder = world
        .builder()
        .authentication_client(who.client())
        .authorization_client(what.client());
    let running = start(builder).await;
    let mut connection = world.connect(&running, None, Http::One).await;
    let jane = [("authorization", "Bearer token-jane")];
    assert_eq!(connection.get(THINGS, &jane).await.code, 200);
    let asked =
        |cluster: &Cluster| ["TokenReview", "SubjectAccessReview"].map(|kind| cluster.reviews(kind).len());
    assert_eq!(
        (asked(&world.cluster), asked(&who), asked(&what)),
        ([0, 0], [1, 0], [0, 1])
    );
}
