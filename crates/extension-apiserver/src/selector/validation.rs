//! What label keys and values may look like, in the words of `k8s.io/apimachinery/pkg/api/validate/content`.

const LABEL: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_RULE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const SUBDOMAIN_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;

/// What is wrong with a label key; nothing when it is empty.
pub(super) fn label_key_errors(key: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let name = match key.split_once('/') {
        None => key,
        Some((prefix, name)) if !name.contains('/') => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                errors.extend(subdomain_errors(prefix).map(|error| format!("prefix part {error}")));
            }
            name
        }
        Some(_) => {
            return vec![format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                pattern(LABEL_RULE, &["MyName", "my.name", "123-abc"], LABEL)
            )];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        errors.push(format!("name part must be no more than {LABEL_MAX} bytes"));
    }
    if !is_label(name) {
        let rule = pattern(LABEL_RULE, &["MyName", "my.name", "123-abc"], LABEL);
        errors.push(format!("name part {rule}"));
    }
    errors
}

/// What is wrong with a label value; nothing when it is empty.
pub(super) fn label_value_errors(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > LABEL_MAX {
        errors.push(format!("must be no more than {LABEL_MAX} bytes"));
    }
    if !value.is_empty() && !is_label(value) {
        errors.push(pattern(
            &format!(
                "a valid label must be an empty string or {}",
                LABEL_RULE.trim_start_matches("must ")
            ),
            &["MyValue", "my_value", "12345"],
            &format!("({LABEL})?"),
        ));
    }
    errors
}

fn subdomain_errors(value: &str) -> impl Iterator<Item = String> {
    let length = (value.len() > SUBDOMAIN_MAX).then(|| format!("must be no more than {SUBDOMAIN_MAX} bytes"));
    let valid = value.split('.').all(|label| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    });
    let form = (!valid).then(|| pattern(SUBDOMAIN_RULE, &["example.com"], SUBDOMAIN));
    length.into_iter().chain(form)
}

fn is_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    bytes.iter().copied().all(inner) && edge(bytes.first()) && edge(bytes.last())
}

fn pattern(rule: &str, examples: &[&str], regex: &str) -> String {
    let examples: Vec<_> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!(
        "{rule} (e.g. {}regex used for validation is '{regex}')",
        examples.join(" or ")
    )
}
