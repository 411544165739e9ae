use super::*;

const FINDINGS_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/findings.md");

/// The page of the documentation that lists them all.
fn page() -> String {
    let mut page = "# Findings\n\n\
        Everything that `status.findings` of a `MetricsStack` can name, the most severe first. This page is made from the\n\
        operator's own table: `INSTA_UPDATE=always cargo test -p metricsstack-operator findings`.\n"
        .to_owned();
    for reason in Reason::all() {
        let entry = reason.entry();
        page += &[
            "\n## ",
            &reason.name(),
            "\n\n",
            entry.cause,
            "\n\n**What to do:** ",
            entry.remedy,
            "\n",
        ]
        .concat();
    }
    page
}

#[test]
fn the_page_of_findings_is_fresh() {
    let page = page();
    if std::env::var("INSTA_UPDATE").as_deref() == Ok("always") {
        std::fs::write(FINDINGS_FILE, &page).unwrap();
    }
    let found = std::fs::read_to_string(FINDINGS_FILE).unwrap_or_default();
    assert!(
        found == page,
        "docs/findings.md is stale; renew it with\nINSTA_UPDATE=always cargo test -p metricsstack-operator findings"
    );
}

#[test]
fn reasons_are_distinct_camel_case_words_with_a_remedy() {
    let mut names = std::collections::BTreeSet::new();
    for reason in Reason::all() {
        let name = reason.name();
        // What Kubernetes takes as a condition's reason.
        assert!(
            name.starts_with(|c: char| c.is_ascii_uppercase())
                && name.chars().all(|c| c.is_ascii_alphanumeric())
        );
        let entry = reason.entry();
        assert!(
            entry.cause.ends_with('.') && entry.remedy.ends_with('.'),
            "{name}"
        );
        // An event's note holds 1024 bytes.
        assert!(entry.cause.len() + entry.remedy.len() < 700, "{name}");
        assert!(names.insert(name));
    }
    assert_eq!(names.len(), 37 + ErrorClass::ALL.len());
}
