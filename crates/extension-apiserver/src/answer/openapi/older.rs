//! From version 3 to version 2, for the few things that this library writes.

use serde_json::{Map, Value, json};

/// Turns what is written as in version 3 into what version 2 has for it.
pub(super) fn older(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            // A reference could not stand beside a description.
            if let Some(Value::Array(parts)) = fields.remove("allOf") {
                fields.extend(parts.into_iter().filter_map(into_object).flatten());
            }
            // Version 2 has no choice of types; quantities are strings there.
            if fields.remove("oneOf").is_some() {
                fields.insert("type".to_owned(), json!("string"));
            }
            if fields.get("in").is_some_and(|place| place != "body")
                && let Some(schema) = fields.remove("schema").and_then(into_object)
            {
                fields.extend(schema);
            }
            let consumed = fields.remove("requestBody").and_then(|body| {
                let content = into_object(into_object(body)?.remove("content")?)?;
                let schema = content.values().next()?.get("schema")?.clone();
                let body = json!({"name": "body", "in": "body", "required": true, "schema": schema});
                Some((content, body))
            });
            let content = fields
                .get_mut("responses")
                .and_then(|responses| responses.pointer_mut("/200"))
                .and_then(Value::as_object_mut)
                .and_then(|answer| {
                    let content = into_object(answer.remove("content")?)?;
                    let schema = content.values().next()?.get("schema")?.clone();
                    answer.insert("schema".to_owned(), schema);
                    Some(content)
                });
            if let Some(content) = content {
                let produces: Vec<_> = content.into_iter().map(|(media, _)| media).collect();
                fields.insert("produces".to_owned(), json!(produces));
                fields.insert("consumes".to_owned(), json!(["*/*"]));
                fields.insert("schemes".to_owned(), json!(["https"]));
            }
            if let Some((content, body)) = consumed {
                let media: Vec<_> = content.into_iter().map(|(media, _)| media).collect();
                fields.insert("consumes".to_owned(), json!(media));
                if let Some(Value::Array(parameters)) = fields.get_mut("parameters") {
                    parameters.push(body);
                }
            }
            fields.values_mut().for_each(older);
        }
        Value::Array(values) => values.iter_mut().for_each(older),
        _ => {}
    }
}

fn into_object(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(fields) => Some(fields),
        _ => None,
    }
}
