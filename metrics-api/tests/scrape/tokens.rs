//! Tokens: requested, renewed ahead, replaced when a kubelet refuses one.

use std::time::Duration;

use contract::report::ErrorClass;
use metrics_api::{
    kubelet::{
        client::{Kept, KubeletClient, KubeletOptions, RESOURCE_METRICS},
        tls::TlsMode,
    },
    token::{TokenSource, Tokens, bearer},
};
use tokio::time::{advance, pause, resume, sleep};

use crate::support::{
    UID,
    api::FakeApi,
    kubelet::{Answer, FakeKubelet},
    options,
    pki::Authority,
    provider,
};

fn requested(api: &FakeApi) -> Tokens {
    Tokens::start(TokenSource::Request {
        api: Box::new(api.service_accounts()),
        name: "kubelet-reader".to_owned(),
    })
}

async fn current(tokens: &Tokens) -> Result<String, ErrorClass> {
    let token = tokens.get().await.map_err(|error| error.class)?;
    Ok(token.header().to_str().unwrap().to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_well_before_its_end() {
    let api = FakeApi::default();
    api.set_token_life(600);
    let tokens = requested(&api);
    assert_eq!(current(&tokens).await.unwrap(), "Bearer token-1");
    sleep(Duration::from_secs(390)).await;
    assert_eq!(current(&tokens).await.unwrap(), "Bearer token-1");
    sleep(Duration::from_secs(20)).await;
    assert_eq!(current(&tokens).await.unwrap(), "Bearer token-2");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_cannot_be_renewed_is_used_to_its_end_and_no_longer() {
    let api = FakeApi::default();
    api.set_token_life(600);
    let tokens = requested(&api);
    current(&tokens).await.unwrap();
    api.refuse(|_, _| Some(403));
    sleep(Duration::from_secs(590)).await;
    assert_eq!(current(&tokens).await.unwrap(), "Bearer token-1");
    sleep(Duration::from_secs(30)).await;
    let error = tokens.get().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::TokenUnavailable);
    assert!(
        error.message.contains("kubelet-reader") && error.message.contains("403"),
        "{}",
        error.message
    );
    api.allow_all();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(current(&tokens).await.unwrap(), "Bearer token-2");
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_replaced_once_unless_it_is_new() {
    let api = FakeApi::default();
    api.set_token_life(600);
    let tokens = requested(&api);
    let first = tokens.get().await.unwrap();
    assert!(
        tokens.newer_than(&first, true).await.is_none(),
        "a kubelet that refuses all tokens costs nothing"
    );
    sleep(Duration::from_mins(1)).await;
    let second = tokens.newer_than(&first, true).await.unwrap();
    assert_eq!(second.header(), "Bearer token-2");
    assert_eq!(
        tokens.newer_than(&first, true).await.unwrap().header(),
        "Bearer token-2",
        "the next one gets the same"
    );
    assert!(tokens.newer_than(&second, true).await.is_none());
    sleep(Duration::from_mins(1)).await;
    assert!(
        tokens.newer_than(&second, false).await.is_none(),
        "only if it may"
    );
}

#[tokio::test(start_paused = true)]
async fn a_mounted_token_is_read_again() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "one\n").unwrap();
    let tokens = Tokens::start(TokenSource::File(file.path().to_owned()));
    assert_eq!(current(&tokens).await.unwrap(), "Bearer one");
    std::fs::write(file.path(), "two").unwrap();
    // Reading a file is real work that the paused clock does not wait for.
    while current(&tokens).await.unwrap() != "Bearer two" {
        sleep(Duration::from_secs(10)).await;
    }
    std::fs::remove_file(file.path()).unwrap();
    sleep(Duration::from_secs(200)).await;
    assert_eq!(
        current(&tokens).await.unwrap(),
        "Bearer two",
        "what was read stays in use"
    );
}

#[tokio::test]
async fn a_kubelet_that_forgot_a_token_gets_a_newer_one_at_once() {
    let (api, authority) = (FakeApi::default(), Authority::new("cluster"));
    api.set_token_life(600);
    let kubelet = FakeKubelet::start(&authority.leaf(|_| {})).await;
    let tokens = requested(&api);
    current(&tokens).await.unwrap();
    // Only the clock of the token is moved: with sockets in use it must run by itself.
    pause();
    advance(Duration::from_mins(1)).await;
    resume();
    kubelet.answer(Answer::For("token-2"));
    let options = KubeletOptions {
        tokens: Some(tokens),
        ..options(TlsMode::Verify, &authority)
    };
    let client = KubeletClient::new(options, provider());
    client
        .get(&mut Kept::default(), UID, &kubelet.endpoint, RESOURCE_METRICS)
        .await
        .unwrap();
    assert_eq!((kubelet.seen().len(), kubelet.connections()), (2, 1));
    kubelet.answer(Answer::For("another"));
    let error = client
        .get(&mut Kept::default(), UID, &kubelet.endpoint, RESOURCE_METRICS)
        .await
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::Unauthorized);
}

#[tokio::test]
async fn a_kubelet_that_hangs_up_after_a_refusal_has_refused() {
    let (api, authority) = (FakeApi::default(), Authority::new("cluster"));
    api.set_token_life(600);
    let kubelet = FakeKubelet::start(&authority.leaf(|_| {})).await;
    kubelet.answer(Answer::For("token-2"));
    kubelet.close_after_each_answer();
    let tokens = requested(&api);
    current(&tokens).await.unwrap();
    pause();
    advance(Duration::from_mins(1)).await;
    resume();
    let options = KubeletOptions {
        tokens: Some(tokens),
        ..options(TlsMode::Verify, &authority)
    };
    let (client, mut kept) = (KubeletClient::new(options, provider()), Kept::default());
    let first = client
        .get(&mut kept, UID, &kubelet.endpoint, RESOURCE_METRICS)
        .await;
    assert_eq!(first.unwrap_err().class, ErrorClass::Unauthorized);
    // The newer token is at hand now.
    client
        .get(&mut kept, UID, &kubelet.endpoint, RESOURCE_METRICS)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_kubelet_that_refuses_every_token_costs_one_request_in_ten_minutes() {
    let (api, authority) = (FakeApi::default(), Authority::new("cluster"));
    api.set_token_life(6000);
    let kubelet = FakeKubelet::start(&authority.leaf(|_| {})).await;
    kubelet.answer(Answer::For("none"));
    let tokens = requested(&api);
    let client = KubeletClient::new(
        KubeletOptions {
            tokens: Some(tokens.clone()),
            ..options(TlsMode::Verify, &authority)
        },
        provider(),
    );
    let mut kept = Kept::default();
    // Each step: minutes that pass, and the token that is at hand after the kubelet has refused it again.
    for (minutes, token) in [(0, 1), (1, 2), (1, 2), (5, 2), (5, 3), (1, 3)] {
        pause();
        advance(Duration::from_mins(minutes)).await;
        resume();
        let error = client
            .get(&mut kept, UID, &kubelet.endpoint, RESOURCE_METRICS)
            .await
            .unwrap_err();
        assert_eq!(error.class, ErrorClass::Unauthorized);
        assert_eq!(
            current(&tokens).await.unwrap(),
            format!("Bearer token-{token}"),
            "{minutes}"
        );
    }
}

#[test]
fn a_token_is_never_printed() {
    let header = bearer("the-secret").unwrap();
    assert!(!format!("{header:?}").contains("the-secret"));
    assert!(bearer("").is_none() && bearer(" \n").is_none() && bearer("a\u{1}b").is_none());
}
