//! Field selectors: `metadata.name=a,metadata.namespace!=b`.

use crate::resource::Item;
use crate::status::Quoted;

/// A parsed field selector, not yet held against the fields that there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSelector(Vec<Term>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    field: String,
    equal: bool,
    value: String,
}

impl FieldSelector {
    /// Reads a selector; the error is what apimachinery says.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = split_unescaped_commas(text);
        // apimachinery sorts too: it decides which of two errors is told.
        parts.sort_unstable();
        let mut terms = Vec::new();
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let (field, equal, value) = split_term(part)
                .ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{part}'"))?;
            let value = unescape(value)?;
            // As in apimachinery, nothing compared with nothing asks for nothing.
            if !field.is_empty() || !value.is_empty() {
                let field = field.to_owned();
                terms.push(Term { field, equal, value });
            }
        }
        Ok(Self(terms))
    }

    /// The one value that `field` must have, if there is one.
    pub(crate) fn exact(&self, field: &str) -> Option<&str> {
        let mut terms = self.0.iter();
        terms
            .find(|term| term.equal && term.field == field)
            .map(|term| term.value.as_str())
    }

    /// Holds the selector against the fields that every object has; the error is what apimachinery says.
    pub(crate) fn of_objects(self) -> Result<ObjectFields, String> {
        let terms = self.0.into_iter().map(|term| {
            let field = match term.field.as_str() {
                "metadata.name" => Field::Name,
                "metadata.namespace" => Field::Namespace,
                other => {
                    let found = Quoted(other);
                    return Err(format!(
                        "{found} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                    ));
                }
            };
            Ok((field, term.equal, term.value))
        });
        Ok(ObjectFields(terms.collect::<Result<_, _>>()?))
    }
}

/// A field selector over `metadata.name` and `metadata.namespace`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ObjectFields(Vec<(Field, bool, String)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Name,
    Namespace,
}

impl ObjectFields {
    /// How many terms there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the object fulfils every term.
    pub(crate) fn matches(&self, item: &dyn Item) -> bool {
        self.0.iter().all(|(field, equal, value)| {
            let found = match field {
                Field::Name => item.name(),
                Field::Namespace => item.namespace().unwrap_or_default(),
            };
            (found == value) == *equal
        })
    }

    /// The one namespace that objects may be in, if there is one.
    pub(crate) fn namespace(&self) -> Option<&str> {
        let mut terms = self.0.iter();
        terms
            .find(|(field, equal, _)| *field == Field::Namespace && *equal)
            .map(|(_, _, value)| value.as_str())
    }
}

fn split_unescaped_commas(text: &str) -> Vec<&str> {
    let mut escaped = false;
    text.split(|c| {
        let end = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        end
    })
    .collect()
}

/// Splits at the first operator: field, whether it must be equal, escaped value.
fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let at = term
        .match_indices(['=', '!'])
        .find(|(at, found)| *found == "=" || term.get(*at..).is_some_and(|rest| rest.starts_with("!=")))?
        .0;
    let (field, rest) = term.split_at_checked(at)?;
    match rest.strip_prefix("!=") {
        Some(value) => Some((field, false, value)),
        None => Some((
            field,
            true,
            rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))?,
        )),
    }
}

fn unescape(value: &str) -> Result<String, String> {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => plain.push(escaped),
                other => {
                    let other = other.map(String::from).unwrap_or_default();
                    return Err(format!(
                        "invalid field selector: invalid escape sequence: \\{other}"
                    ));
                }
            },
            ',' | '=' => {
                // Go prints the character's number here.
                let number = u32::from(c);
                return Err(format!(
                    "invalid field selector: unescaped character in value: {number}"
                ));
            }
            c => plain.push(c),
        }
    }
    Ok(plain)
}
