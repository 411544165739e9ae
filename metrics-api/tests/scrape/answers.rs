//! What kubelets answer, and what becomes of it.

use std::{sync::Arc, time::Duration};

use contract::report::{ErrorClass, TlsState};
use metrics_api::{
    kubelet::{
        address::{Endpoint, Guard, Host},
        client::{Kept, KubeletClient, KubeletOptions, RESOURCE_METRICS},
        tls::TlsMode,
    },
    time::UnixMillis,
    token::{TokenSource, Tokens},
};
use tokio::net::TcpListener;

use crate::support::{
    METRICS, TOKEN, UID, client,
    kubelet::{Answer, FakeKubelet},
    options, pki, provider,
};

async fn kubelet() -> (pki::Authority, FakeKubelet) {
    let authority = pki::Authority::new("cluster");
    let kubelet = FakeKubelet::start(&authority.leaf(|_| {})).await;
    (authority, kubelet)
}

#[tokio::test]
async fn a_good_answer_arrives_whole_and_the_connection_is_kept() {
    let (authority, kubelet) = kubelet().await;
    let (client, mut kept) = (client(TlsMode::Verify, &authority), Kept::default());
    for _ in 0..3 {
        let body = client
            .get(&mut kept, UID, &kubelet.endpoint, RESOURCE_METRICS)
            .await
            .unwrap();
        assert_eq!(body.body, METRICS);
        assert_eq!(body.date, Some(UnixMillis(1_795_452_103_000)));
    }
    assert_eq!(kubelet.connections(), 1);
    assert_eq!(kept.tls, TlsState::Verified);
    let seen = kubelet.seen();
    assert_eq!(seen[0].line, "GET /metrics/resource");
    assert_eq!(seen[0].authorization, Some(format!("Bearer {TOKEN}")));
}

#[tokio::test]
async fn a_kubelet_may_hang_up_between_two_scrapes() {
    let (authority, kubelet) = kubelet().await;
    kubelet.close_after_each_answer();
    let (client, mut kept) = (client(TlsMode::Verify, &authority), Kept::default());
    for connections in 1..=3 {
        client
            .get(&mut kept, UID, &kubelet.endpoint, RESOURCE_METRICS)
            .await
            .unwrap();
        assert_eq!(kubelet.connections(), connections);
    }
}

#[tokio::test]
async fn each_bad_answer_has_its_class_and_shows_nothing_of_itself() {
    let (authority, kubelet) = kubelet().await;
    let client = client(TlsMode::Verify, &authority);
    let body = || b"SECRET-BODY".to_vec();
    let table = [
        (Answer::Full(401, body()), ErrorClass::Unauthorized),
        (Answer::Full(403, body()), ErrorClass::Forbidden),
        (Answer::Full(404, body()), ErrorClass::NotFound),
        (Answer::Full(500, body()), ErrorClass::BadStatus),
        (Answer::Full(302, body()), ErrorClass::BadStatus),
        (Answer::Full(204, Vec::new()), ErrorClass::BadStatus),
        (
            Answer::Raw(b"SECRET-BODY is no HTTP\r\n\r\n"),
            ErrorClass::Malformed,
        ),
        (
            Answer::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nSECRET-BODY"),
            ErrorClass::Unreachable,
        ),
        (
            Answer::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n"),
            ErrorClass::TooLarge,
        ),
        (Answer::Endless, ErrorClass::TooLarge),
        (Answer::HangUp, ErrorClass::Unreachable),
    ];
    for (answer, class) in table {
        let described = format!("{answer:?}");
        kubelet.answer(answer);
        let error = client
            .get(&mut Kept::default(), UID, &kubelet.endpoint, RESOURCE_METRICS)
            .await
            .unwrap_err();
        assert_eq!(error.class, class, "{described}: {}", error.message);
        assert!(!error.message.contains("SECRET"), "{}", error.message);
        assert!(!error.message.contains(TOKEN), "{}", error.message);
    }
    let followed = kubelet
        .seen()
        .iter()
        .any(|request| request.line.contains("elsewhere"));
    assert!(
        !followed,
        "a redirect would take the token to where somebody else wants it"
    );
}

#[tokio::test]
async fn after_a_bad_answer_the_next_good_one_is_taken() {
    let (authority, kubelet) = kubelet().await;
    let (client, mut kept) = (client(TlsMode::Verify, &authority), Kept::default());
    for answer in [Answer::Full(500, Vec::new()), Answer::HangUp, Answer::Endless] {
        kubelet.answer(answer);
        client
            .get(&mut kept, UID, &kubelet.endpoint, RESOURCE_METRICS)
            .await
            .unwrap_err();
        kubelet.answer(Answer::Full(200, METRICS.to_vec()));
        client
            .get(&mut kept, UID, &kubelet.endpoint, RESOURCE_METRICS)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn silence_ends_with_the_timeout() {
    let (authority, kubelet) = kubelet().await;
    kubelet.answer(Answer::Silence);
    let options = KubeletOptions {
        timeout: Duration::from_millis(300),
        ..options(TlsMode::Verify, &authority)
    };
    let client = KubeletClient::new(options, provider());
    let error = client
        .get(&mut Kept::default(), UID, &kubelet.endpoint, RESOURCE_METRICS)
        .await
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::Timeout);
    assert!(error.message.contains("0.3 s"), "{}", error.message);
}

#[tokio::test]
async fn a_new_connection_is_not_called_a_kept_one_when_everything_is_late() {
    let (authority, kubelet) = kubelet().await;
    kubelet.answer(Answer::Silence);
    let timeout = Duration::from_secs(2);
    let options = KubeletOptions {
        timeout,
        ..options(TlsMode::Verify, &authority)
    };
    let client = KubeletClient::new(options, provider());
    let mut kept = Kept::default();
    let asking = client.get(&mut kept, UID, &kubelet.endpoint, RESOURCE_METRICS);
    // Nothing of this thread runs for so long that every timer is due at once.
    let stalled = async {
        while kubelet.seen().is_empty() {
            tokio::task::yield_now().await;
        }
        std::thread::sleep(timeout);
    };
    let (answer, ()) = tokio::join!(asking, stalled);
    let message = answer.unwrap_err().message;
    assert!(message.contains("no complete answer within 2 s"), "{message}");
}

#[tokio::test]
async fn what_hangs_is_named() {
    let authority = pki::Authority::new("cluster");
    let options = KubeletOptions {
        timeout: Duration::from_millis(300),
        ..options(TlsMode::Verify, &authority)
    };
    let client = KubeletClient::new(options, provider());
    // The system makes the connection, and nobody takes it up.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut endpoint = FakeKubelet::plain().await.endpoint;
    endpoint.port = listener.local_addr().unwrap().port();
    let error = client
        .get(&mut Kept::default(), UID, &endpoint, RESOURCE_METRICS)
        .await
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::Timeout);
    assert_eq!(error.message, "no end of the TLS handshake within 0.3 s");
}

#[tokio::test]
async fn nobody_there_is_unreachable_and_no_tls_is_no_handshake() {
    let authority = pki::Authority::new("cluster");
    let client = client(TlsMode::Verify, &authority);
    let mut endpoint = FakeKubelet::plain().await.endpoint;
    let plain = FakeKubelet::plain().await;
    let error = client
        .get(&mut Kept::default(), UID, &plain.endpoint, RESOURCE_METRICS)
        .await
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::TlsHandshake, "{}", error.message);
    // A port that was free a moment ago.
    endpoint.port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let error = client
        .get(&mut Kept::default(), UID, &endpoint, RESOURCE_METRICS)
        .await
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::Unreachable, "{}", error.message);
}

#[tokio::test]
async fn without_a_token_nothing_is_asked() {
    let (authority, kubelet) = kubelet().await;
    let missing = TokenSource::File("/nonexistent/token".into());
    let options = KubeletOptions {
        tokens: Some(Tokens::start(missing)),
        ..options(TlsMode::Verify, &authority)
    };
    let client = KubeletClient::new(options, provider());
    let error = client
        .get(&mut Kept::default(), UID, &kubelet.endpoint, RESOURCE_METRICS)
        .await
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::TokenUnavailable);
    assert!(error.message.contains("/nonexistent/token"), "{}", error.message);
    assert_eq!(kubelet.seen(), []);
}

#[tokio::test]
async fn a_node_that_moved_is_dialled_anew() {
    let (authority, first) = kubelet().await;
    let second = FakeKubelet::start(&authority.leaf(|_| {})).await;
    let (client, mut kept) = (Arc::new(client(TlsMode::Verify, &authority)), Kept::default());
    client
        .get(&mut kept, UID, &first.endpoint, RESOURCE_METRICS)
        .await
        .unwrap();
    client
        .get(&mut kept, UID, &second.endpoint, RESOURCE_METRICS)
        .await
        .unwrap();
    assert_eq!((first.seen().len(), second.seen().len()), (1, 1));
}

#[tokio::test]
async fn a_kept_connection_that_died_silently_leaves_time_for_a_new_one() {
    let (authority, kubelet) = kubelet().await;
    let options = KubeletOptions {
        timeout: Duration::from_secs(6),
        ..options(TlsMode::Verify, &authority)
    };
    let (client, mut kept) = (KubeletClient::new(options, provider()), Kept::default());
    client
        .get(&mut kept, UID, &kubelet.endpoint, RESOURCE_METRICS)
        .await
        .unwrap();
    kubelet.go_deaf();
    let begun = std::time::Instant::now();
    client
        .get(&mut kept, UID, &kubelet.endpoint, RESOURCE_METRICS)
        .await
        .unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(kubelet.connections(), 2);
}

#[tokio::test]
async fn a_slow_kubelet_is_not_taken_for_one_that_is_gone() {
    let (authority, kubelet) = kubelet().await;
    let options = KubeletOptions {
        timeout: Duration::from_secs(4),
        ..options(TlsMode::Verify, &authority)
    };
    let (client, mut kept) = (KubeletClient::new(options, provider()), Kept::default());
    kubelet.answer(Answer::Late(Duration::from_millis(1500)));
    for _ in 0..2 {
        client
            .get(&mut kept, UID, &kubelet.endpoint, RESOURCE_METRICS)
            .await
            .unwrap();
    }
    assert_eq!((kubelet.connections(), kubelet.seen().len()), (1, 2));
}

#[tokio::test]
async fn names_are_judged_by_what_they_resolve_to() {
    let (authority, kubelet) = kubelet().await;
    let guarded = |guard| {
        let options = KubeletOptions {
            guard,
            ..options(TlsMode::Insecure, &authority)
        };
        KubeletClient::new(options, provider())
    };
    let port = kubelet.endpoint.port;
    let named = |name: &str| Endpoint {
        host: Host::Name(name.into()),
        port,
    };
    let loopback = Guard {
        loopback: true,
        ..Guard::default()
    };
    let api_server = Guard {
        api_servers: vec![(Host::from("localhost"), port)],
        ..loopback.clone()
    };
    for (guard, name, expected) in [
        (Guard::default(), "localhost", Err(ErrorClass::NoAddress)),
        (api_server.clone(), "localhost", Err(ErrorClass::NoAddress)),
        (loopback.clone(), "localhost", Ok(())),
    ] {
        let asked = guarded(guard)
            .get(&mut Kept::default(), UID, &named(name), RESOURCE_METRICS)
            .await;
        let asked = asked.map(drop).map_err(|error| error.class);
        assert_eq!(asked, expected, "{name}");
    }
    for (guard, expected) in [
        (Guard::default(), ErrorClass::NoAddress),
        (api_server, ErrorClass::NoAddress),
    ] {
        let error = guarded(guard)
            .get(&mut Kept::default(), UID, &kubelet.endpoint, RESOURCE_METRICS)
            .await
            .unwrap_err();
        assert_eq!(error.class, expected, "an address as such is no better");
    }
    assert_eq!(kubelet.seen().len(), 1);
}

#[tokio::test]
async fn all_large_answers_together_have_a_limit() {
    const MANY: usize = 8;
    const LARGE: usize = 300 * 1024;
    let authority = pki::Authority::new("cluster");
    let options = KubeletOptions {
        room: 1024 * 1024,
        ..options(TlsMode::Insecure, &authority)
    };
    let client = Arc::new(KubeletClient::new(options, provider()));
    let (mut kubelets, mut tasks) = (Vec::new(), tokio::task::JoinSet::new());
    let held = Arc::new(tokio::sync::Barrier::new(MANY));
    for _ in 0..MANY {
        let (client, held) = (Arc::clone(&client), Arc::clone(&held));
        let kubelet = FakeKubelet::start(&authority.leaf(|_| {})).await;
        kubelet.answer(Answer::Full(200, vec![b'a'; LARGE]));
        let endpoint = kubelet.endpoint.clone();
        kubelets.push(kubelet);
        tasks.spawn(async move {
            let answer = client
                .get(&mut Kept::default(), UID, &endpoint, RESOURCE_METRICS)
                .await;
            // Nobody gives room back before all have asked for it.
            held.wait().await;
            answer.map(drop).map_err(|error| error.class)
        });
    }
    let all = tasks.join_all().await;
    let refused = all.iter().filter(|answer| answer.is_err()).count();
    assert!(
        all.iter()
            .all(|answer| matches!(answer, Ok(()) | Err(ErrorClass::TooLarge)))
    );
    // Each takes a share of 236 KiB to twice that.
    assert!((MANY - 4..MANY).contains(&refused), "{refused}");
    let kubelet = FakeKubelet::start(&authority.leaf(|_| {})).await;
    kubelet.answer(Answer::Full(200, vec![b'a'; LARGE]));
    client
        .get(&mut Kept::default(), UID, &kubelet.endpoint, RESOURCE_METRICS)
        .await
        .expect("the room is given back");
}
