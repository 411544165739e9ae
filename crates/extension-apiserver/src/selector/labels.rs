//! Label selectors: `x in (a,b),y,!z,n>3`.

use std::collections::BTreeSet;

use super::validation::{label_key_errors, label_value_errors};
use crate::status::Quoted;

/// A parsed label selector: all its requirements must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LabelSelector {
    requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    GreaterThan(i64),
    LessThan(i64),
}

impl LabelSelector {
    /// Reads a selector; the error is what apimachinery says.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let requirements = Parser::new(text).selector()?;
        Ok(Self { requirements })
    }

    /// How many requirements there are.
    pub(crate) fn len(&self) -> usize {
        self.requirements.len()
    }

    /// Whether labels, looked up by key, fulfil every requirement.
    pub(crate) fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = label(&requirement.key);
            let number = || value.and_then(|value| value.parse::<i64>().ok());
            match &requirement.test {
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
                Test::In(values) => value.is_some_and(|value| values.contains(value)),
                Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Test::GreaterThan(limit) => number().is_some_and(|number| number > *limit),
                Test::LessThan(limit) => number().is_some_and(|number| number < *limit),
            }
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Identifier(&'a str),
    Symbol(&'a str),
    End,
}

impl<'a> Token<'a> {
    fn text(self) -> &'a str {
        match self {
            Token::Identifier(text) | Token::Symbol(text) => text,
            Token::End => "",
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn is_symbol(byte: u8) -> bool {
    matches!(byte, b'=' | b'!' | b'(' | b')' | b',' | b'>' | b'<')
}

/// Splits off the next token.
fn next_token(text: &str) -> (Token<'_>, &str) {
    let text = text.trim_start_matches(|c: char| u8::try_from(c).is_ok_and(is_space));
    let Some(&first) = text.as_bytes().first() else {
        return (Token::End, "");
    };
    if is_symbol(first) {
        let length = if text.starts_with("==") || text.starts_with("!=") {
            2
        } else {
            1
        };
        let (symbol, rest) = text.split_at_checked(length).unwrap_or((text, ""));
        return (Token::Symbol(symbol), rest);
    }
    // The ends of an identifier are ASCII: the cut is always between characters.
    let end = |byte: u8| is_symbol(byte) || is_space(byte);
    let length = text.bytes().position(end).unwrap_or(text.len());
    let (identifier, rest) = text.split_at_checked(length).unwrap_or((text, ""));
    (Token::Identifier(identifier), rest)
}

struct Parser<'a> {
    next: Token<'a>,
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        let (next, rest) = next_token(text);
        Self { next, rest }
    }

    fn advance(&mut self) -> Token<'a> {
        let token = self.next;
        if token != Token::End {
            (self.next, self.rest) = next_token(self.rest);
        }
        token
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            match self.next {
                Token::Identifier(_) | Token::Symbol("!") => {}
                Token::End => return Ok(requirements),
                Token::Symbol(found) => {
                    return Err(format!(
                        "found '{found}', expected: !, identifier, or 'end of string'"
                    ));
                }
            }
            let requirement = self
                .requirement()
                .map_err(|error| format!("unable to parse requirement: {error}"))?;
            requirements.push(requirement);
            match self.advance() {
                Token::End => return Ok(requirements),
                Token::Symbol(",") => match self.next {
                    Token::Identifier(_) | Token::Symbol("!") => {}
                    other => {
                        let found = other.text();
                        return Err(format!("found '{found}', expected: identifier after ','"));
                    }
                },
                other => {
                    let found = other.text();
                    return Err(format!("found '{found}', expected: ',' or 'end of string'"));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let mut token = self.advance();
        let negated = token == Token::Symbol("!");
        if negated {
            token = self.advance();
        }
        let Token::Identifier(key) = token else {
            return Err(format!("found '{}', expected: identifier", token.text()));
        };
        let errors = label_key_errors(key);
        if !errors.is_empty() {
            return Err(format!(
                "<nil>: Invalid value: {}: {}",
                Quoted(key),
                errors.join("; ")
            ));
        }
        let bare = matches!(self.next, Token::End | Token::Symbol(","));
        let test = match (negated, bare) {
            (true, _) => Test::Absent,
            (false, true) => Test::Exists,
            (false, false) => self.comparison(key)?,
        };
        let key = key.to_owned();
        Ok(Requirement { key, test })
    }

    fn comparison(&mut self, key: &str) -> Result<Test, String> {
        let operator = self.advance().text();
        let values = match operator {
            "in" | "notin" => self.set()?,
            "=" | "==" | "!=" | ">" | "<" => self.value()?,
            found => return Err(format!("found '{found}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        let mut errors = Vec::new();
        let mut number = 0;
        if matches!(operator, ">" | "<") {
            for (at, value) in values.iter().enumerate() {
                match value.parse() {
                    Ok(value) => number = value,
                    Err(_) => errors.push(format!(
                        "values[{at}]: Invalid value: {}: for 'Gt', 'Lt' operators, the value must be an integer",
                        Quoted(value)
                    )),
                }
            }
        }
        for (at, value) in values.iter().enumerate() {
            let wrong = label_value_errors(value);
            if !wrong.is_empty() {
                let value = Quoted(value);
                errors.push(format!(
                    "values[{at}][{key}]: Invalid value: {value}: {}",
                    wrong.join("; ")
                ));
            }
        }
        match errors.as_slice() {
            [] => {}
            [error] => return Err(error.clone()),
            errors => return Err(format!("[{}]", errors.join(", "))),
        }
        Ok(match operator {
            "notin" | "!=" => Test::NotIn(values),
            ">" => Test::GreaterThan(number),
            "<" => Test::LessThan(number),
            _ => Test::In(values),
        })
    }

    /// `(a,b)`. Left out values are the empty string: `()`, `(,)`, `(a,,b)`.
    fn set(&mut self) -> Result<BTreeSet<String>, String> {
        let open = self.advance();
        if open != Token::Symbol("(") {
            return Err(format!("found '{}' expected: '('", open.text()));
        }
        match self.next {
            Token::Identifier(_) | Token::Symbol(",") => {}
            Token::Symbol(")") => {
                self.advance();
                return Ok(BTreeSet::from([String::new()]));
            }
            other => {
                let found = other.text();
                return Err(format!("found '{found}', expected: ',', ')' or identifier"));
            }
        }
        let mut values = BTreeSet::new();
        loop {
            match self.advance() {
                Token::Identifier(value) => {
                    values.insert(value.to_owned());
                    match self.next {
                        Token::Symbol(",") => {}
                        Token::Symbol(")") => break,
                        other => return Err(format!("found '{}', expected: ',' or ')'", other.text())),
                    }
                }
                Token::Symbol(",") => {
                    if values.is_empty() {
                        values.insert(String::new());
                    }
                    match self.next {
                        Token::Symbol(")") => {
                            values.insert(String::new());
                            break;
                        }
                        Token::Symbol(",") => {
                            values.insert(String::new());
                        }
                        _ => {}
                    }
                }
                other => return Err(format!("found '{}', expected: ',', or identifier", other.text())),
            }
        }
        self.advance();
        Ok(values)
    }

    fn value(&mut self) -> Result<BTreeSet<String>, String> {
        if matches!(self.next, Token::End | Token::Symbol(",")) {
            return Ok(BTreeSet::from([String::new()]));
        }
        match self.advance() {
            Token::Identifier(value) => Ok(BTreeSet::from([value.to_owned()])),
            other => Err(format!("found '{}', expected: identifier", other.text())),
        }
    }
}
