//! What one client, and all together, may take up.

use super::*;

#[tokio::test]
async fn a_client_that_says_nothing_is_not_waited_for() {
    let world = World::new();
    let short = Duration::from_secs(2);
    let running = world
        .start_with(Limits {
            handshake_timeout: short,
            header_timeout: short,
            ..limits()
        })
        .await;
    let mut silent = TcpStream::connect(running.address).await.unwrap();
    let Connection::One(mut sender) = world.connect(&running, None, Http::One).await else {
        panic!("not HTTP/1.1");
    };
    let closed = async {
        assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
        while sender.ready().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, closed).await.unwrap();
}

#[tokio::test]
async fn silent_connections_lock_nobody_out() {
    let world = World::new();
    let running = world
        .start_with(Limits {
            connections: 1,
            unproven_connections: 2,
            ..limits()
        })
        .await;
    let mut proxy = world.connect(&running, Some(&world.proxy()), Http::Two).await;
    assert_eq!(proxy.get(THINGS, &JANE).await.code, 200);
    let mut token = world.connect(&running, None, Http::One).await;
    let jane = [("authorization", "Bearer token-jane")];
    assert_eq!(token.get(THINGS, &jane).await.code, 200);
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(running.address).await.unwrap());
    }
    // The newest is answered at once, the oldest had to go, and the proven have noticed nothing.
    let mut probe = world.connect(&running, None, Http::One).await;
    assert_eq!(probe.get("/livez", &[]).await.code, 200);
    let mut byte = [0];
    let gone = tokio::time::timeout(DEADLINE, silent[0].read(&mut byte))
        .await
        .unwrap();
    assert!(gone.is_err() || gone.is_ok_and(|read| read == 0));
    assert_eq!(proxy.get(THINGS, &JANE).await.code, 200);
    assert_eq!(token.get(THINGS, &jane).await.code, 200);
    let page = proxy.get("/metrics", &JANE).await.text;
    assert!(
        page.contains("\napiserver_dropped_connections_total 19\n"),
        "{page}"
    );
}

/// Asks for a list over HTTP/2 and reads nothing of it.
async fn ask_and_not_read(world: &World, running: &Running) -> (http2::SendRequest<Full<Bytes>>, Incoming) {
    let stream = TcpStream::connect(running.address).await.unwrap();
    let tls = world.shake_as_proxy(stream, "h2").await;
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(100)
        .handshake(TokioIo::new(tls))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::get(format!("https://{NAME}{THINGS}"));
    let request = request.header(JANE[0].0, JANE[0].1).header(JANE[1].0, JANE[1].1);
    let request = request.body(Full::default()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    (sender, response.into_body())
}

#[tokio::test]
async fn one_request_too_many_is_sent_away_but_probes_and_masters_are_not() {
    let mut world = World::new();
    world.count = 1000;
    let running = world
        .start_with(Limits {
            requests_in_flight: 1,
            ..limits()
        })
        .await;
    let unread = ask_and_not_read(&world, &running).await;
    let mut connection = world.connect(&running, Some(&world.proxy()), Http::Two).await;
    let answer = connection.get(THINGS, &JANE).await;
    assert_eq!(answer.code, 429);
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(connection.get("/livez/ping", &JANE).await.code, 200);
    let aggregator = [
        ("x-remote-user", "system:kube-aggregator"),
        ("x-remote-group", "system:masters"),
    ];
    assert_eq!(
        connection.get("/apis/example.dev/v1", &aggregator).await.code,
        200
    );
    let mut probe = world.connect(&running, None, Http::One).await;
    assert_eq!(probe.get("/livez", &[]).await.code, 200);
    assert_eq!(probe.get(THINGS, &[]).await.code, 429);
    drop(unread);
    let free = async { while connection.get(THINGS, &JANE).await.code == 429 {} };
    tokio::time::timeout(DEADLINE, free).await.unwrap();
}

#[tokio::test]
async fn no_limit_and_the_largest_limit_are_limits_too() {
    let mut world = World::new();
    world.count = 1000;
    for requests_in_flight in [0, usize::MAX] {
        let running = world
            .start_with(Limits {
                requests_in_flight,
                connections: usize::MAX,
                unproven_connections: usize::MAX,
                ..limits()
            })
            .await;
        let _unread = ask_and_not_read(&world, &running).await;
        let mut connection = world.connect(&running, Some(&world.proxy()), Http::Two).await;
        assert_eq!(connection.get(THINGS, &JANE).await.code, 200);
    }
}

/// A client that reads a byte now and then, and one that reads nothing, while a thousand others are served.
#[tokio::test]
async fn slow_clients_hold_up_nobody_and_are_given_up() {
    let mut world = World::new();
    // More than the sockets' buffers can hold.
    world.count = 40_000;
    let running = world
        .start_with(Limits {
            requests_in_flight: 3,
            request_timeout: Duration::from_secs(3),
            ..limits()
        })
        .await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(running.address).await.unwrap();
    let mut slow = world.shake_as_proxy(stream, "http/1.1").await;
    let request = format!("GET {THINGS} HTTP/1.1\r\nhost: {NAME}\r\nx-remote-user: jane\r\n\r\n");
    slow.write_all(request.as_bytes()).await.unwrap();
    let (sender, unread) = ask_and_not_read(&world, &running).await;

    let mut others = Connection::Two(sender);
    for at in 0..1000 {
        let answer = others.get("/apis/example.dev/v1/things/one", &JANE).await;
        assert_eq!(answer.code, 200);
        if at % 50 == 0 {
            let _ = slow.read(&mut [0]).await;
        }
    }
    // Their places are free again: only this request has one.
    let free = async {
        loop {
            let page = others.get("/metrics", &JANE).await.text;
            if page.contains("\napiserver_current_inflight_requests 1\n") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, free).await.unwrap();
    // The one ends with its connection, the other alone: its connection was the front proxy's, and goes on.
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(DEADLINE, slow.read_to_end(&mut rest))
        .await
        .unwrap();
    assert!(ended.is_err(), "{} bytes and then a proper end", rest.len());
    let ended = tokio::time::timeout(DEADLINE, unread.collect()).await.unwrap();
    assert!(ended.is_err());
    assert_eq!(others.get("/version", &JANE).await.code, 200);
}

#[tokio::test]
async fn a_body_is_not_waited_for() {
    let world = World::new();
    let running = world
        .start_with(Limits {
            request_timeout: Duration::from_hours(1),
            ..limits()
        })
        .await;
    let answered = async {
        for (head, code) in [
            (format!("POST {THINGS}"), "405"),
            ("GET /livez".to_owned(), "200"),
        ] {
            let stream = TcpStream::connect(running.address).await.unwrap();
            let mut tls = world.shake_as_proxy(stream, "http/1.1").await;
            let head = format!(
                "{head} HTTP/1.1\r\nhost: {NAME}\r\nx-remote-user: jane\r\ncontent-length: 1000000\r\n\r\nbegun"
            );
            tls.write_all(head.as_bytes()).await.unwrap();
            let mut answer = [0; 12];
            tls.read_exact(&mut answer).await.unwrap();
            assert_eq!(str::from_utf8(&answer).unwrap(), format!("HTTP/1.1 {code}"));
        }
        let stream = TcpStream::connect(running.address).await.unwrap();
        let tls = TokioIo::new(world.shake_as_proxy(stream, "h2").await);
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), tls).await.unwrap();
        tokio::spawn(connection);
        let endless = StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, Infallible>>());
        let request = Request::post(format!("https://{NAME}/livez"))
            .header(JANE[0].0, JANE[0].1)
            .body(endless)
            .unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), 405);
    };
    tokio::time::timeout(DEADLINE, answered).await.unwrap();
}

#[tokio::test]
async fn headers_are_limited() {
    let world = World::new();
    let running = world
        .start_with(Limits {
            header_bytes: 8192,
            ..limits()
        })
        .await;
    let long = "x".repeat(10_000);
    for http in [Http::One, Http::Two] {
        let mut connection = world.connect(&running, Some(&world.proxy()), http).await;
        let answer = connection
            .send(Method::GET, THINGS, &[("x-long", &long), JANE[0]], Bytes::new())
            .await;
        let refused = answer.map_or(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.as_u16(), |answer| {
            answer.code
        });
        assert_eq!(refused, 431);
    }
}

#[tokio::test]
async fn users_may_have_thousands_of_groups() {
    let world = World::new();
    let running = world.start().await;
    let groups: Vec<_> = (0..3000)
        .map(|at| format!("group-of-some-length-{at:06}"))
        .collect();
    let mut headers = vec![JANE[0]];
    headers.extend(groups.iter().map(|group| ("x-remote-group", group.as_str())));
    for http in [Http::One, Http::Two] {
        let mut connection = world.connect(&running, Some(&world.proxy()), http).await;
        assert_eq!(connection.get(THINGS, &headers).await.code, 200, "{http:?}");
    }
    let asked = world.cluster.reviews("SubjectAccessReview");
    assert_eq!(asked[0]["spec"]["groups"].as_array().unwrap().len(), 3001);
}

#[tokio::test]
async fn connections_end_by_age_or_by_chance_and_without_http2_if_so_wanted() {
    let world = World::new();
    let ended = async |mut connection: Connection| {
        let ended = async {
            while connection
                .send(Method::GET, "/livez", &[], Bytes::new())
                .await
                .is_ok()
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, ended).await.unwrap();
    };
    for limits in [
        Limits {
            connection_age: Some(Duration::from_millis(200)),
            ..limits()
        },
        Limits {
            goaway_chance: 1.0,
            ..limits()
        },
    ] {
        let running = world.start_with(limits).await;
        for http in [Http::One, Http::Two] {
            ended(world.connect(&running, None, http).await).await;
        }
    }
    let running = world
        .start_with(Limits {
            http2: false,
            connection_age: None,
            ..limits()
        })
        .await;
    let stream = TcpStream::connect(running.address).await.unwrap();
    let tls = world
        .shake(&rustls::version::TLS13, stream, None, &["h2", "http/1.1"])
        .await
        .unwrap();
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_given_up() {
    let world = World::new();
    let running = world
        .start_with(Limits {
            request_timeout: Duration::from_millis(200),
            ..limits()
        })
        .await;
    world.cluster.hold();
    let mut connection = world.connect(&running, Some(&world.proxy()), Http::Two).await;
    let late = connection.get("/apis/example.dev/v1/things/one", &JANE).await;
    assert_eq!(
        (late.code, late.json()["reason"].as_str()),
        (504, Some("Timeout"))
    );
}
