//! Lists: their parameters, their parts and what is selected.

use super::*;

#[test]
fn parameters_that_do_not_go_together_are_refused() {
    let path = "GET /apis/metrics.k8s.io/v1/pods?resourceVersionMatch=Exact";
    for (parameters, code) in [("", 422), ("&watch=true", 422), ("&resourceVersion=1", 200)] {
        let answered = ask(&api(), &format!("{path}{parameters}"), &[]);
        assert_eq!(answered.code, code, "{parameters}");
    }
}

#[test]
fn numbers_among_the_parameters_are_checked() {
    let answered = ask(
        &api(),
        "GET /apis/metrics.k8s.io/v1/pods?timeoutSeconds=9223372036854775808",
        &[],
    );
    let message = "strconv.ParseInt: parsing \"9223372036854775808\": value out of range";
    assert_eq!(answered.json()["message"], message);
    let answered = ask(&api(), "GET /apis/metrics.k8s.io/v1/pods?limit=many", &[]);
    assert_eq!(
        answered.json()["message"],
        "strconv.ParseInt: parsing \"many\": invalid syntax"
    );
    assert_eq!(answered.code, 400);
}

#[test]
fn a_large_list_comes_in_parts_and_holds_no_lock_between_them() {
    let (pods, nodes) = resources();
    *pods.items.write().unwrap() = many(3000);
    let api = api_of(&["v1"], Arc::clone(&pods), nodes);
    let mut response = start(&api, "GET /apis/metrics.k8s.io/v1/pods", &[]);
    assert_eq!(response.body().size_hint().exact(), None);
    let mut body = Vec::new();
    let mut parts = 0;
    while let Some(frame) = block_on(response.body_mut().frame()) {
        let part = frame.unwrap().into_data().unwrap();
        assert!(part.len() < 70 * 1024);
        body.extend_from_slice(&part);
        parts += 1;
        // Only possible while the list holds no lock. What was the list's last object is gone when it goes on.
        let mut items = pods.items.write().unwrap();
        let last = String::from_utf8_lossy(&part)
            .rfind("pod-")
            .map(|at| part[at..at + 10].to_vec());
        items.retain(|item| Some(item.name.as_bytes()) > last.as_deref());
    }
    assert!(parts > 5, "{parts}");
    let list: Value = serde_json::from_slice(&body).unwrap();
    let expected: Vec<_> = many(3000).into_iter().map(|pod| pod.name).collect();
    assert_eq!(names(&list), expected);
}

#[test]
fn a_selector_that_matches_nothing_lets_others_have_their_turn() {
    let (pods, nodes) = resources();
    *pods.items.write().unwrap() = many(50_000);
    let api = api_of(&["v1"], Arc::clone(&pods), nodes);
    let request = "GET /apis/metrics.k8s.io/v1/pods?labelSelector=third,none";
    let mut response = start(&api, request, &[]);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let (mut pauses, mut body) = (0, Vec::new());
    loop {
        // Only possible while the list holds no lock.
        drop(pods.items.write().unwrap());
        match std::pin::Pin::new(response.body_mut()).poll_frame(&mut context) {
            std::task::Poll::Pending => pauses += 1,
            std::task::Poll::Ready(Some(frame)) => body.extend(frame.unwrap().into_data().unwrap()),
            std::task::Poll::Ready(None) => break,
        }
    }
    assert!(pauses >= 5, "{pauses}");
    let list: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(list["items"], serde_json::json!([]));
}

#[test]
fn a_list_that_cannot_go_on_breaks_off() {
    let (pods, nodes) = resources();
    *pods.items.write().unwrap() = many(1000);
    let api = api_of(&["v1"], Arc::clone(&pods), nodes);
    let mut response = start(&api, "GET /apis/metrics.k8s.io/v1/pods", &[]);
    assert!(block_on(response.body_mut().frame()).unwrap().is_ok());
    let refusal = Status::service_unavailable("the store is gone");
    *pods.refusal.write().unwrap() = Some(refusal.clone());
    assert_eq!(
        block_on(response.body_mut().frame()).unwrap().unwrap_err(),
        refusal
    );
    assert!(block_on(response.body_mut().frame()).is_none());
    assert_eq!(ask(&api, "GET /apis/metrics.k8s.io/v1/pods", &[]).code, 503);
}

#[test]
fn fields_select_by_namespace() {
    let api = api();
    let found = |path: &str, namespace: &str| {
        let request =
            format!("GET /apis/metrics.k8s.io/v1/{path}?fieldSelector=metadata.namespace%3D{namespace}");
        ask(&api, &request, &[]).json()["items"].as_array().unwrap().len()
    };
    assert_eq!(found("pods", "kube-system"), 5);
    assert_eq!(found("pods", "default"), 0);
    assert_eq!(found("namespaces/kube-system/pods", "default"), 0);
    assert_eq!(found("nodes", "kube-system"), 0);
    assert_eq!(found("nodes", ""), 1);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
    #[test]
    fn lists_are_whole_whatever_is_selected(
        count in 1_usize..700,
        namespace in 0_usize..8,
        labels: bool,
        pretty: bool,
        form in 0..3,
    ) {
        let (pods, nodes) = resources();
        *pods.items.write().unwrap() = many(count);
        let api = api_of(&["v1"], pods, nodes);
        let place = if namespace == 7 { String::new() } else { format!("/namespaces/ns-{namespace}") };
        let selector = if labels { "third=yes" } else { "" };
        let accept = match form {
            0 => "application/json",
            1 => "application/json;as=Table;v=v1;g=meta.k8s.io",
            _ => "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
        };
        let request = format!("GET /apis/metrics.k8s.io/v1{place}/pods?pretty={pretty}&labelSelector={selector}");
        let mut list = ask(&api, &request, &[("accept", accept)]).json();
        if form == 1 {
            let rows = list["rows"].as_array_mut().unwrap().drain(..);
            list["items"] = rows.map(|mut row| row["object"].take()).collect();
        }
        let expected = many(count).into_iter().filter(|pod| {
            (namespace == 7 || pod.namespace == Some(format!("ns-{namespace}")))
                && (!labels || pod.labels["third"] == "yes")
        });
        proptest::prop_assert_eq!(names(&list), expected.map(|pod| pod.name).collect::<Vec<_>>());
    }

    #[test]
    fn no_request_makes_it_panic(path in "[ -~]{0,60}", accept in "[ -~]{0,60}", query in "[ -~]{0,60}") {
        let uri = format!("/apis/metrics.k8s.io/v1/{path}?{query}");
        let builder = Request::builder().uri(uri).header("accept", accept);
        if let Ok(request) = builder.body(()) {
            let (parts, ()) = request.into_parts();
            let info = request_info(&parts.method, &parts.uri);
            let _ = read(respond(&api(), &info, &parts, &bytes::Bytes::new()));
        }
    }
}
