//! What is answered that is no list: the headers of HEAD, metrics, changes and watches.

use super::*;

#[tokio::test]
async fn an_answer_to_head_says_what_get_would() {
    let world = World::new();
    let running = world.start().await;
    for http in [Http::One, Http::Two] {
        let mut connection = world.connect(&running, Some(&world.proxy()), http).await;
        let path = "/openapi/v3";
        let get = connection.get(path, &JANE).await;
        let mut head = async |headers: &[(&str, &str)]| {
            connection
                .send(Method::HEAD, path, headers, Bytes::new())
                .await
                .unwrap()
        };
        let known = head(&[JANE[0], ("if-none-match", get.headers["etag"].to_str().unwrap())]).await;
        assert_eq!((known.code, known.headers.get("content-length")), (304, None));
        let length = get.text.len().to_string();
        assert_eq!(head(&JANE).await.headers["content-length"], length.as_str());
    }
}

#[tokio::test]
async fn metrics_are_for_those_who_may_read_them() {
    let world = World::new();
    let running = world.start().await;
    let mut connection = world.connect(&running, Some(&world.proxy()), Http::Two).await;
    let joe = connection.get("/metrics", &[("x-remote-user", "joe")]).await;
    assert_eq!(joe.code, 403);
    assert_eq!(
        joe.message(),
        "forbidden: User \"joe\" cannot get path \"/metrics\""
    );
    for path in [THINGS, "/apis/example.dev/v1/nonsense", "/a/b/c"] {
        connection.get(path, &JANE).await;
    }
    connection
        .send(Method::from_bytes(b"BREW").unwrap(), "/tea", &JANE, Bytes::new())
        .await
        .unwrap();
    let page = connection.get("/metrics", &JANE).await;
    assert_eq!(page.code, 200);
    let requests: Vec<_> = page
        .text
        .lines()
        .filter(|line| line.starts_with("apiserver_request_total"))
        .collect();
    for line in [
        r#"apiserver_request_total{code="200",resource="things",verb="list"} 1"#,
        r#"apiserver_request_total{code="403",resource="",verb="get"} 1"#,
        r#"apiserver_request_total{code="404",resource="",verb="other"} 1"#,
        r#"apiserver_request_total{code="404",resource="",verb="list"} 1"#,
    ] {
        assert!(requests.contains(&line), "{line} is not in {requests:#?}");
    }
    for name in [
        "apiserver_request_duration_seconds_bucket{",
        "apiserver_current_inflight_requests 1",
        "apiserver_authentications_total{result=\"certificate\"} 6",
        "apiserver_delegated_authz_request_total{result=\"success\"}",
        "apiserver_denied_requests_total 1",
        "apiserver_connections 1",
        "apiserver_serving_certificate_expiration_timestamp_seconds 2.",
        "# TYPE apiserver_request_total counter",
    ] {
        assert!(page.text.contains(name), "{name} is not in {}", page.text);
    }
    let text = "text/plain; version=0.0.4; charset=utf-8";
    assert_eq!(
        (&page.headers["content-type"], page.text.contains("# EOF")),
        (&text.parse().unwrap(), false)
    );
    let openmetrics = [JANE[0], ("accept", "application/openmetrics-text;version=1.0.0")];
    let page = connection.get("/metrics", &openmetrics).await;
    let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(page.headers["content-type"], openmetrics);
    assert!(page.text.ends_with("# EOF\n") && page.text.contains("# TYPE apiserver_request counter"));
}

struct Note;

impl Kind for Note {
    fn write_cells(&self, _: &Value, cells: &mut JsonArray<'_>) {
        cells.string("");
    }
}

#[tokio::test]
async fn objects_are_created_and_watched_over_both_versions_of_http() {
    let world = World::new();
    let info = ResourceInfo::cluster_scoped("notes", "Note");
    let group = ApiGroup {
        name: "example.dev",
        versions: vec!["v1"],
        resources: vec![Arc::new(Memory::new("example.dev", info, Note, 100))],
    };
    let certificate = ServingCertificate::Files {
        certificate: world.path("tls.crt"),
        key: world.path("tls.key"),
    };
    let limits = Limits {
        body_bytes: 1000,
        requests_in_flight: 1,
        request_timeout: Duration::from_secs(2),
        ..limits()
    };
    let builder = Server::builder(world.cluster.client(), group, certificate).limits(limits);
    let mut running = start(builder).await;
    let notes = "/apis/example.dev/v1/notes";
    let mut asking = Vec::new();
    for http in [Http::One, Http::Two] {
        let mut watching = world.connect(&running, Some(&world.proxy()), http).await;
        let path = format!("{notes}?watch=true&resourceVersion=0");
        // Its connection ends when the server does.
        asking.push(tokio::spawn(async move { watching.get(&path, &JANE).await.text }));
    }
    // A watch takes no place, and lasts longer than a request may.
    tokio::time::sleep(Duration::from_millis(2200)).await;
    let mut connection = world.connect(&running, Some(&world.proxy()), Http::One).await;
    let body = Bytes::from_static(br#"{"metadata":{"name":"x"}}"#);
    let created = connection.send(Method::POST, notes, &JANE, body).await.unwrap();
    assert_eq!(created.code, 201, "{}", created.text);
    let long = Bytes::from(vec![b' '; 1001]);
    let refused = connection.send(Method::POST, notes, &JANE, long).await.unwrap();
    assert_eq!(refused.code, 413);
    running.shutdown.take().unwrap().send(()).unwrap();
    for asking in asking {
        let told = tokio::time::timeout(DEADLINE, asking).await.unwrap().unwrap();
        assert!(
            told.contains(r#"{"type":"ADDED""#) && told.contains(r#""name":"x""#),
            "{told}"
        );
    }
    let served = tokio::time::timeout(DEADLINE, running.served).await;
    served.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_browser_is_told_whose_scripts_may_read() {
    const ALLOWED: (&str, &str) = ("origin", "https://console.example");
    let world = World::new();
    let origins = CorsOrigins::new(&[r"^https://console\.example$"]).unwrap();
    let running = start(world.builder().cors(origins)).await;
    for http in [Http::One, Http::Two] {
        let mut connection = world.connect(&running, None, http).await;
        // A browser asks without credentials first, and then with them.
        let preflight = connection
            .send(Method::OPTIONS, THINGS, &[ALLOWED], Bytes::new())
            .await
            .unwrap();
        assert_eq!((preflight.code, preflight.text.as_str()), (204, ""));
        assert_eq!(
            preflight.headers["access-control-allow-methods"],
            "POST, GET, OPTIONS, PUT, DELETE, PATCH"
        );
        let jane = ("authorization", "Bearer token-jane");
        let answered = connection.get(THINGS, &[ALLOWED, jane]).await;
        let refused = connection.get(THINGS, &[ALLOWED]).await;
        assert_eq!((answered.code, refused.code), (200, 403));
        for answer in [&preflight, &answered, &refused] {
            assert_eq!(answer.headers["access-control-allow-origin"], ALLOWED.1);
            assert_eq!(answer.headers["access-control-allow-credentials"], "true");
        }
        let other = ("origin", "https://console.example.attacker.dev");
        let asked = connection
            .send(Method::OPTIONS, THINGS, &[other, jane], Bytes::new())
            .await
            .unwrap();
        let read = connection.get(THINGS, &[other, jane]).await;
        assert_eq!((asked.code, read.code), (405, 200));
        for answer in [asked, read] {
            assert!(!answer.headers.contains_key("access-control-allow-origin"));
        }
    }
}
