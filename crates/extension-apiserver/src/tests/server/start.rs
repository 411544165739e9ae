//! What a server starts with, and what changes under it.

use super::*;

#[tokio::test]
async fn a_new_certificate_is_served_without_a_restart() {
    let world = World::new();
    let running = world.start().await;
    let other = Authority::new("other");
    world.store(&other.server(NAME));
    // The world's client trusts the first authority only: it is refused as soon as the new certificate is served.
    let refused = async {
        while world.dial(&running, None, Http::Two).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(DEADLINE, refused).await.unwrap();
    assert!(!running.served.is_finished());
}

#[tokio::test]
async fn a_config_map_that_cannot_be_read_ends_the_start_and_says_what_to_do() {
    let world = World::new();
    let unreadable: [Content; 3] = [
        Err((
            403,
            "configmaps \"extension-apiserver-authentication\" is forbidden: User \"x\" cannot get",
        )),
        Err((404, "configmaps \"extension-apiserver-authentication\" not found")),
        Ok([("client-ca-file".to_owned(), "rubbish".to_owned())].into()),
    ];
    let mut told = Vec::new();
    for content in unreadable {
        world.cluster.publish(content);
        let error = world
            .builder()
            .bind("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap_err();
        told.push(error.to_string());
    }
    insta::assert_json_snapshot!(told);
}

#[tokio::test]
async fn with_tolerance_it_starts_unready_and_becomes_ready_by_itself() {
    let world = World::new();
    world.cluster.publish(Err((404, "not found")));
    let tolerant = Authentication {
        tolerate_lookup_failure: true,
        ..Authentication::default()
    };
    let running = start(world.builder().authentication(tolerant)).await;
    let mut probe = world.connect(&running, None, Http::One).await;
    let unready = probe.get("/readyz?verbose", &[]).await;
    assert_eq!(unready.code, 500, "{}", unready.text);
    assert!(
        unready.text.contains("[-]authentication-config-sync failed"),
        "{}",
        unready.text
    );
    assert_eq!(probe.get("/livez", &[]).await.code, 200);
    let mut proxy = world.connect(&running, Some(&world.proxy()), Http::Two).await;
    assert_eq!(proxy.get(THINGS, &JANE).await.code, 401);

    world.cluster.publish(Ok(published(None, Some(&world.proxies))));
    let ready = async {
        while probe.get("/readyz", &[]).await.code != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, ready).await.unwrap();
    let mut proxy = world.connect(&running, Some(&world.proxy()), Http::Two).await;
    assert_eq!(proxy.get(THINGS, &JANE).await.code, 200);
}

#[tokio::test]
async fn reviews_that_fail_are_errors_and_are_asked_again() {
    let world = World::new();
    let running = world.start().await;
    world.cluster.fail_reviews(true);
    let mut connection = world.connect(&running, Some(&world.proxy()), Http::Two).await;
    let answer = connection.get(THINGS, &JANE).await;
    assert_eq!(answer.code, 500);
    insta::assert_json_snapshot!(answer.json());
    world.cluster.fail_reviews(false);
    assert_eq!(connection.get(THINGS, &JANE).await.code, 200);
}

#[tokio::test]
async fn a_certificate_is_served_to_those_who_ask_for_its_name() {
    let world = World::new();
    let other = world.serving.server("other.example");
    std::fs::write(world.path("other.crt"), other.certificate_pem()).unwrap();
    std::fs::write(world.path("other.key"), other.key_pem()).unwrap();
    for names in [vec![], vec!["*.example".to_owned()]] {
        let tls = TlsOptions {
            minimum: TlsVersion::V1_3,
            by_name: vec![NamedCertificate {
                certificate: world.path("other.crt"),
                key: world.path("other.key"),
                names,
            }],
            ..TlsOptions::default()
        };
        let hsts = "max-age=31536000".parse().unwrap();
        let running = start(world.builder().tls(tls).strict_transport_security(hsts)).await;
        let mut roots = RootCertStore::empty();
        roots.add(world.serving.certificate()).unwrap();
        let config = ClientConfig::builder_with_provider(crate::tls::provider())
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(running.address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let asked = ServerName::try_from("other.example").unwrap();
        let tls = connector.connect(asked, stream).await.unwrap();
        assert_eq!(
            tls.get_ref().1.peer_certificates().unwrap()[0].to_vec(),
            other.der()
        );
        let mut usual = world.connect(&running, None, Http::Two).await;
        let answer = usual.get("/livez", &[]).await;
        assert_eq!(answer.headers["strict-transport-security"], "max-age=31536000");
        let older = world
            .dial_by(&rustls::version::TLS12, &running, None, Http::Two)
            .await;
        assert!(older.is_err());
    }
}
