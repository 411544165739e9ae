//! How a server ends.

use super::*;

#[tokio::test]
async fn open_requests_are_answered_after_shutdown_began() {
    let world = World::new();
    let mut running = world.start().await;
    world.cluster.hold();
    let mut connections = Vec::new();
    for http in [Http::One, Http::Two] {
        connections.push(world.connect(&running, Some(&world.proxy()), http).await);
    }
    let asking: Vec<_> = connections
        .into_iter()
        .zip([THINGS, "/apis/example.dev/v1/things/one"])
        .map(|(mut connection, path)| tokio::spawn(async move { connection.get(path, &JANE).await.code }))
        .collect();
    let asked = async {
        while world.cluster.reviews("SubjectAccessReview").len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, asked).await.unwrap();
    running.shutdown.take().unwrap().send(()).unwrap();
    let unreachable = async { while TcpStream::connect(running.address).await.is_ok() {} };
    tokio::time::timeout(DEADLINE, unreachable).await.unwrap();
    assert!(!running.served.is_finished());
    world.cluster.release();
    world.cluster.release();
    for asking in asking {
        assert_eq!(asking.await.unwrap(), 200);
    }
    let served = tokio::time::timeout(DEADLINE, running.served).await;
    served.unwrap().unwrap().unwrap();
}

/// Go's client does not try again when a new connection is closed under its first request.
#[tokio::test]
async fn whoever_has_just_come_is_answered_though_the_server_stops() {
    let world = World::new();
    let mut running = world.start().await;
    let mut shaken = world.connect(&running, Some(&world.proxy()), Http::One).await;
    let accepted = TcpStream::connect(running.address).await.unwrap();
    running.shutdown.take().unwrap().send(()).unwrap();
    let unreachable = async { while TcpStream::connect(running.address).await.is_ok() {} };
    tokio::time::timeout(DEADLINE, unreachable).await.unwrap();
    let answer = shaken.get(THINGS, &JANE).await;
    assert_eq!(
        (answer.code, answer.headers["connection"].as_bytes()),
        (200, &b"close"[..])
    );
    let tls = world.shake_as_proxy(accepted, "http/1.1").await;
    let (sender, connection) = http1::handshake(TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(Connection::One(sender).get(THINGS, &JANE).await.code, 200);
    let served = tokio::time::timeout(DEADLINE, running.served).await;
    served.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn it_can_send_clients_elsewhere_until_those_in_flight_are_answered() {
    let world = World::new();
    let mut running = world
        .start_with(Limits {
            shutdown_send_retry_after: true,
            ..limits()
        })
        .await;
    world.cluster.hold();
    let mut held = world.connect(&running, Some(&world.proxy()), Http::Two).await;
    let held = tokio::spawn(async move { held.get(THINGS, &JANE).await.code });
    let asked = async {
        while world.cluster.reviews("SubjectAccessReview").is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, asked).await.unwrap();
    running.shutdown.take().unwrap().send(()).unwrap();
    let mut probe = world.connect(&running, None, Http::One).await;
    let unready = async { while probe.get("/readyz", &[]).await.code == 200 {} };
    tokio::time::timeout(DEADLINE, unready).await.unwrap();
    assert_eq!(probe.get("/livez", &[]).await.code, 200);
    for http in [Http::One, Http::Two] {
        let mut late = world.connect(&running, Some(&world.proxy()), http).await;
        let answer = late.get("/version", &JANE).await;
        assert_eq!(
            (answer.code, &answer.headers["retry-after"]),
            (429, &"5".parse().unwrap())
        );
        assert!(answer.message().contains("shutting down"), "{}", answer.text);
        assert_eq!(answer.headers.contains_key("connection"), http == Http::One);
        assert!(
            late.send(Method::GET, "/version", &JANE, Bytes::new())
                .await
                .is_err()
        );
    }
    world.cluster.release();
    assert_eq!(held.await.unwrap(), 200);
    let served = tokio::time::timeout(DEADLINE, running.served).await;
    served.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn it_can_answer_on_while_clients_learn_that_it_ends() {
    let world = World::new();
    let mut running = world
        .start_with(Limits {
            shutdown_delay: Duration::from_hours(1),
            ..limits()
        })
        .await;
    running.shutdown.take().unwrap().send(()).unwrap();
    let unready = async {
        let mut probe = world.connect(&running, None, Http::One).await;
        while probe.get("/readyz", &[]).await.code == 200 {}
    };
    tokio::time::timeout(DEADLINE, unready).await.unwrap();
    let mut connection = world.connect(&running, Some(&world.proxy()), Http::Two).await;
    assert_eq!(connection.get(THINGS, &JANE).await.code, 200);
}
