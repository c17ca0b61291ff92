//! Templates and conditions in specifications: Jinja as `minijinja` has it, over the job's input and earlier steps.
//!
//! A template is a pure function of what it is given. No filter or function reads a clock, a file or the environment,
//! and how much work one may do is bounded, so rendering is as deterministic as the rest of a program.

pub(crate) use minijinja::Environment;
use minijinja::UndefinedBehavior;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use serde_json::Value;

/// What templates see.
pub(crate) type Scope = minijinja::Value;

/// Makes a JSON value visible to templates.
pub(crate) fn scope_of(value: &Value) -> Scope {
    Scope::from(Serde(value))
}

/// How many instructions one template may take: far more than any sensible one needs, and an end to loops without
/// one.
const FUEL: u64 = 1_000_000;

/// The environment of all templates.
pub(crate) fn environment() -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
    environment.set_syntax(syntax.expect("because the delimiters are Jinja's own"));
    environment.set_fuel(Some(FUEL));
    // A plan's texts are arguments of commands and messages, never HTML.
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    for (name, filter) in FILTERS {
        filter(&mut environment, name);
    }
    environment
}

type AddFilter = fn(&mut Environment<'static>, &'static str);

/// The filters that templates may use.
const FILTERS: &[(&str, AddFilter)] = &[
    ("abs", |e, n| e.add_filter(n, minijinja::filters::abs)),
    ("default", |e, n| {
        e.add_filter(n, minijinja::filters::default);
    }),
    ("first", |e, n| e.add_filter(n, minijinja::filters::first)),
    ("float", |e, n| e.add_filter(n, minijinja::filters::float)),
    ("int", |e, n| e.add_filter(n, minijinja::filters::int)),
    ("join", |e, n| e.add_filter(n, minijinja::filters::join)),
    ("last", |e, n| e.add_filter(n, minijinja::filters::last)),
    ("length", |e, n| e.add_filter(n, minijinja::filters::length)),
    ("lines", |e, n| e.add_filter(n, minijinja::filters::lines)),
    ("lower", |e, n| e.add_filter(n, minijinja::filters::lower)),
    ("replace", |e, n| {
        e.add_filter(n, minijinja::filters::replace);
    }),
    ("reverse", |e, n| {
        e.add_filter(n, minijinja::filters::reverse);
    }),
    ("round", |e, n| e.add_filter(n, minijinja::filters::round)),
    ("sort", |e, n| e.add_filter(n, minijinja::filters::sort)),
    ("split", |e, n| e.add_filter(n, minijinja::filters::split)),
    ("string", |e, n| e.add_filter(n, minijinja::filters::string)),
    ("tojson", |e, n| e.add_filter(n, minijinja::filters::tojson)),
    ("trim", |e, n| e.add_filter(n, minijinja::filters::trim)),
    ("unique", |e, n| e.add_filter(n, minijinja::filters::unique)),
    ("upper", |e, n| e.add_filter(n, minijinja::filters::upper)),
];

/// The names that templates refer to, such as `steps.count.stdout`.
pub(crate) fn names_in_text(
    environment: &Environment<'_>,
    text: &str,
) -> Result<Vec<String>, String> {
    let template = environment.template_from_str(text).map_err(explain)?;
    Ok(sorted(template.undeclared_variables(true)))
}

/// The names that an expression refers to.
pub(crate) fn names_in_expression(
    environment: &Environment<'_>,
    expression: &str,
) -> Result<Vec<String>, String> {
    let expression = environment
        .compile_expression(expression)
        .map_err(explain)?;
    Ok(sorted(expression.undeclared_variables(true)))
}

fn sorted(names: std::collections::HashSet<String>) -> Vec<String> {
    let mut names: Vec<_> = names.into_iter().collect();
    names.sort_unstable();
    names
}

/// Renders a text.
pub(crate) fn render(
    environment: &Environment<'_>,
    text: &str,
    scope: &Scope,
) -> Result<String, String> {
    if !text.contains('{') {
        return Ok(text.to_owned());
    }
    environment.render_str(text, scope).map_err(explain)
}

/// Whether a condition holds.
pub(crate) fn holds(
    environment: &Environment<'_>,
    expression: &str,
    scope: &Scope,
) -> Result<bool, String> {
    environment
        .compile_expression(expression)
        .and_then(|expression| expression.eval(scope))
        .map(|value| value.is_true())
        .map_err(explain)
}

/// Renders every text inside a JSON value. A text that is nothing but one `{{ expression }}` becomes the expression's
/// value, so that numbers, lists and objects can be handed on as what they are.
pub(crate) fn render_value(
    environment: &Environment<'_>,
    value: &Value,
    scope: &Scope,
) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => match sole_expression(text) {
            Some(expression) => {
                let value = environment
                    .compile_expression(expression)
                    .and_then(|expression| expression.eval(scope))
                    .map_err(explain)?;
                serde_json::to_value(&value).map_err(|error| error.to_string())?
            }
            None => Value::String(render(environment, text, scope)?),
        },
        Value::Array(values) => Value::Array(
            values
                .iter()
                .map(|value| render_value(environment, value, scope))
                .collect::<Result<_, _>>()?,
        ),
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(name, value)| Ok((name.clone(), render_value(environment, value, scope)?)))
                .collect::<Result<_, String>>()?,
        ),
        other => other.clone(),
    })
}

fn sole_expression(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    (!inner.contains("{{") && !inner.contains("}}")).then_some(inner)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it stands where `map_err` hands errors over"
)]
fn explain(error: minijinja::Error) -> String {
    let mut text = error.kind().to_string();
    if let Some(detail) = error.detail() {
        text.push_str(": ");
        text.push_str(detail);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn renders_texts_and_keeps_types_of_sole_expressions() {
        let environment = environment();
        let scope = scope_of(
            &json!({ "input": { "n": 3, "who": "you" }, "steps": { "a": { "stdout": "7\n" } } }),
        );
        let rendered = render_value(
            &environment,
            &json!({
                "text": "hello {{ input.who }}",
                "number": "{{ input.n + 1 }}",
                "trimmed": ["{{ steps.a.stdout | trim | int }}"],
                "plain": "no braces",
            }),
            &scope,
        )
        .unwrap();
        assert_eq!(
            rendered,
            json!({ "text": "hello you", "number": 4, "trimmed": [7], "plain": "no braces" })
        );
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let environment = environment();
        let error = render(
            &environment,
            "{{ input.nothing }}",
            &scope_of(&json!({ "input": {} })),
        )
        .unwrap_err();
        assert!(error.contains("undefined"), "{error}");
    }

    #[test]
    fn endless_work_comes_to_an_end() {
        let environment = environment();
        let scope = scope_of(&json!({ "input": vec![0; 2_000] }));
        let text = "{% for a in input %}{% for b in input %}x{% endfor %}{% endfor %}";
        let error = render(&environment, text, &scope).unwrap_err();
        assert!(error.contains("fuel"), "{error}");
    }
}
