//! The part of JSON Schema (draft 2020-12) that the schemas use.

use serde_json::Value as Json;

/// Every keyword that this module understands. A schema with another keyword fails a test, so that it is not half
/// checked.
pub const KEYWORDS: &[&str] = &[
    "type",
    "const",
    "enum",
    "minimum",
    "maximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "items",
    "properties",
    "required",
    "if",
    "then",
    "else",
];

/// A rule of a schema that a value breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Place in the value: names and `[index]`, empty for the whole value.
    pub at: String,
    /// Description of the violation.
    pub what: String,
}

/// Lists every violation of `schema` in `value`.
pub fn check(schema: &Json, value: &Json) -> Vec<Violation> {
    let mut out = Vec::new();
    walk(schema, value, "", &mut out);
    out
}

fn walk(schema: &Json, value: &Json, at: &str, out: &mut Vec<Violation>) {
    let mut tell = |what: String| {
        out.push(Violation {
            at: at.to_owned(),
            what,
        });
    };
    let Json::Object(rules) = schema else {
        if schema == &Json::Bool(false) {
            tell("does not belong here".to_owned());
        }
        return;
    };
    if let Some(wanted) = rules.get("type").and_then(Json::as_str)
        && !is_type(wanted, value)
    {
        // A value of the wrong type needs no further checks.
        tell(format!("is {}, not {wanted}", name_of(value)));
        return;
    }
    for (keyword, rule) in rules {
        match keyword.as_str() {
            "const" if rule != value => tell(format!("is {value}, not {rule}")),
            "enum" if !rule.as_array().is_some_and(|list| list.contains(value)) => {
                tell(format!("is {value}, none of {rule}"));
            }
            "minimum" => {
                if let (Some(number), Some(least)) = (number(value), number(rule))
                    && number < least
                {
                    tell(format!("is {number}, less than {least}"));
                }
            }
            "maximum" => {
                if let (Some(number), Some(most)) = (number(value), number(rule))
                    && number > most
                {
                    tell(format!("is {number}, more than {most}"));
                }
            }
            "multipleOf" => {
                if let (Some(number), Some(unit)) = (number(value), number(rule))
                    && unit != 0
                    && number % unit != 0
                {
                    tell(format!("is {number:#x}, not a multiple of {unit:#x}"));
                }
            }
            "minLength" | "maxLength" => {
                if let (Some(text), Some(limit)) = (value.as_str(), size(rule)) {
                    let len = text.chars().count();
                    bound(keyword == "minLength", len, limit, "characters", &mut tell);
                }
            }
            "minItems" | "maxItems" => {
                if let (Some(items), Some(limit)) = (value.as_array(), size(rule)) {
                    bound(
                        keyword == "minItems",
                        items.len(),
                        limit,
                        "items",
                        &mut tell,
                    );
                }
            }
            "required" => {
                if let (Some(object), Some(names)) = (value.as_object(), rule.as_array()) {
                    for name in names.iter().filter_map(Json::as_str) {
                        if !object.contains_key(name) {
                            tell(format!("there is no `{name}`"));
                        }
                    }
                }
            }
            _ => {}
        }
    }
    inside(rules, value, at, out);
}

/// Checks the keywords that lead to other schemas.
fn inside(rules: &serde_json::Map<String, Json>, value: &Json, at: &str, out: &mut Vec<Violation>) {
    if let (Some(object), Some(Json::Object(properties))) =
        (value.as_object(), rules.get("properties"))
    {
        for (name, schema) in properties {
            if let Some(value) = object.get(name) {
                let at = if at.is_empty() {
                    name.clone()
                } else {
                    format!("{at}.{name}")
                };
                walk(schema, value, &at, out);
            }
        }
    }
    if let (Some(items), Some(schema)) = (value.as_array(), rules.get("items")) {
        for (index, item) in items.iter().enumerate() {
            walk(schema, item, &format!("{at}[{index}]"), out);
        }
    }
    if let Some(condition) = rules.get("if") {
        let branch = if check(condition, value).is_empty() {
            "then"
        } else {
            "else"
        };
        if let Some(schema) = rules.get(branch) {
            walk(schema, value, at, out);
        }
    }
}

fn bound(least: bool, found: usize, limit: usize, of: &str, tell: &mut impl FnMut(String)) {
    if least && found < limit {
        tell(format!("has {found} {of}, fewer than {limit}"));
    } else if !least && found > limit {
        tell(format!("has {found} {of}, more than {limit}"));
    }
}

fn size(rule: &Json) -> Option<usize> {
    rule.as_u64().and_then(|limit| usize::try_from(limit).ok())
}

/// An integer; every number of a state tree is one.
fn number(value: &Json) -> Option<i128> {
    value
        .as_u64()
        .map(i128::from)
        .or_else(|| value.as_i64().map(i128::from))
}

fn is_type(wanted: &str, value: &Json) -> bool {
    match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => number(value).is_some(),
        "boolean" => value.is_boolean(),
        _ => false,
    }
}

fn name_of(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "boolean",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    }
}
