use super::*;

/// The committed copies: the CRD itself, and the one that Helm can read, which only reads below its chart.
const FILES: [&str; 2] = [
    "crds/metricsstacks.metricsstack.dev.yaml",
    "charts/metricsstack/files/metricsstacks.metricsstack.dev.yaml",
];

#[test]
fn the_crd_files_are_fresh() {
    let expected = serde_yaml::to_string(&crd()).unwrap();
    for file in FILES {
        let found =
            std::fs::read_to_string(format!("{}/../{file}", env!("CARGO_MANIFEST_DIR"))).unwrap_or_default();
        assert!(
            found == expected,
            "{file} is stale; renew it with\ncargo run -p metricsstack-operator -- crd > {file}"
        );
    }
}

/// Every node of the schema with its path.
fn walk(path: &str, schema: &serde_json::Value, visit: &mut impl FnMut(&str, &serde_json::Value)) {
    visit(path, schema);
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), field, visit);
    }
    if schema["items"].is_object() {
        walk(&format!("{path}[]"), &schema["items"], visit);
    }
    if schema["additionalProperties"].is_object() {
        walk(&format!("{path}{{}}"), &schema["additionalProperties"], visit);
    }
}

fn schema() -> serde_json::Value {
    let schema = crd().spec.versions[0]
        .schema
        .clone()
        .unwrap()
        .open_api_v3_schema
        .unwrap();
    serde_json::to_value(schema).unwrap()
}

#[test]
fn a_spec_may_be_left_out() {
    let schema = schema();
    assert_eq!(schema["required"], serde_json::Value::Null);
    assert_eq!(schema["properties"]["spec"]["default"], serde_json::json!({}));
}

#[test]
fn every_field_of_ours_is_documented_optional_and_bounded() {
    let schema = schema();
    let mut fields = 0;
    walk("spec", &schema["properties"]["spec"], &mut |path, schema| {
        // Kubernetes bounds and documents its own.
        let theirs = ["affinity.", "tolerations[]", "topologySpreadConstraints[]"];
        if theirs
            .iter()
            .any(|field| path.starts_with(&format!("spec.metricsApi.{field}")))
        {
            return;
        }
        fields += 1;
        let documented = schema["description"].as_str().is_some_and(|text| text.len() > 10);
        assert!(
            documented || path.ends_with("{}") || path.ends_with("[]"),
            "{path} has no description"
        );
        let optional = schema["required"].is_null() || path.ends_with("[]") || path.ends_with("configMap");
        assert!(optional, "{path} requires {}", schema["required"]);
        let bounded = match schema["type"].as_str() {
            Some("string") => schema["maxLength"].is_u64() || schema["enum"].is_array(),
            Some("array") => schema["maxItems"].is_u64(),
            Some("boolean") => true,
            Some("integer") => schema["maximum"].is_number(),
            Some("object") => {
                schema["properties"].is_object() || schema["maxProperties"].is_u64() || path.ends_with("[]")
            }
            _ => schema["x-kubernetes-int-or-string"] == true,
        };
        assert!(bounded, "{path} is not bounded: {schema}");
    });
    assert!(fields > 25, "{fields}");
}

#[test]
fn rules_have_messages_that_name_the_remedy() {
    let mut messages = Vec::new();
    walk("", &schema(), &mut |path, schema| {
        for rule in schema["x-kubernetes-validations"]
            .as_array()
            .into_iter()
            .flatten()
        {
            messages.push(format!(
                "{path}: {} | {}",
                rule["rule"].as_str().unwrap(),
                rule["message"].as_str().unwrap()
            ));
        }
    });
    insta::assert_yaml_snapshot!(messages);
}

#[test]
fn columns_and_names_are_those_of_the_design() {
    let crd = crd();
    assert_eq!(
        crd.metadata.name.as_deref(),
        Some("metricsstacks.metricsstack.dev")
    );
    assert_eq!(crd.spec.scope, "Cluster");
    assert_eq!(crd.spec.names.short_names, Some(vec!["mstack".to_owned()]));
    let columns: Vec<_> = crd.spec.versions[0]
        .additional_printer_columns
        .iter()
        .flatten()
        .map(|column| (column.name.as_str(), column.priority.unwrap_or_default()))
        .collect();
    assert_eq!(
        columns,
        [
            ("Ready", 0),
            ("Nodes", 0),
            ("API", 0),
            ("Certs", 0),
            ("Age", 0),
            ("Finding", 1)
        ]
    );
}

#[test]
fn what_is_not_said_is_not_written() {
    let stack: MetricsStack = serde_json::from_value(serde_json::json!({
        "apiVersion": "metricsstack.dev/v1alpha1",
        "kind": "MetricsStack",
        "metadata": {"name": "default"},
        "spec": {},
    }))
    .unwrap();
    assert_eq!(serde_json::to_value(&stack.spec).unwrap(), serde_json::json!({}));
}
