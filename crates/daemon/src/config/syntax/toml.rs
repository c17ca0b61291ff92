//! TOML into the tree. The parser recovers from errors, so that several are reported at once.

use ::toml::Spanned;
use ::toml::de::{DeTable, DeValue};

use super::{DEPTH_MAX, Data, Node, SyntaxError, TableBuilder};
use crate::config::origin::Lines;

/// How many syntax errors are worth reading: what follows the first few is mostly their consequence.
const ERRORS_SHOWN: usize = 5;

pub(super) fn parse(text: &str) -> Result<Node, Vec<SyntaxError>> {
    let lines = Lines::of(text);
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let error = |error: &::toml::de::Error| {
            let span = error.span().unwrap_or_default();
            let message = match (error.message(), text.get(span.clone())) {
                ("duplicate key", Some(key)) => format!("the key `{key}` is given twice"),
                (message, _) => message.lines().next().unwrap_or_default().to_owned(),
            };
            SyntaxError::new(lines.position(span.start), message)
        };
        return Err(errors.iter().take(ERRORS_SHOWN).map(error).collect());
    }
    let at = lines.position(root.span().start);
    let value = table(root.into_inner(), &lines, 0).map_err(|error| vec![error])?;
    Ok(Node { at, value })
}

fn table(table: DeTable<'_>, lines: &Lines<'_>, depth: usize) -> Result<Data, SyntaxError> {
    let mut entries: Vec<_> = table.into_iter().collect();
    // The table is sorted by key; people read, and mend, by position.
    entries.sort_by_key(|(key, _)| key.span().start);
    let mut builder = TableBuilder::default();
    for (key, value) in entries {
        let at = lines.position(key.span().start);
        builder.insert(
            key.into_inner().into_owned(),
            at,
            node(value, lines, depth + 1)?,
        )?;
    }
    Ok(builder.finish())
}

fn node(value: Spanned<DeValue<'_>>, lines: &Lines<'_>, depth: usize) -> Result<Node, SyntaxError> {
    let at = lines.position(value.span().start);
    if depth > DEPTH_MAX {
        return Err(SyntaxError::too_deep(at));
    }
    let value = match value.into_inner() {
        DeValue::String(text) => Data::Text(text.into_owned()),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .ok()
            .and_then(Data::integer)
            .ok_or_else(|| SyntaxError::new(at, format!("the number `{number}` is too large")))?,
        DeValue::Float(number) => number
            .as_str()
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite())
            .map(Data::Float)
            .ok_or_else(|| SyntaxError::new(at, format!("`{number}` is no finite number")))?,
        DeValue::Boolean(value) => Data::Bool(value),
        // No key of ours is a date, and JSON has none: as text it is refused where it does not fit, and kept
        // where a job's body wants it.
        DeValue::Datetime(date) => Data::Text(date.to_string()),
        DeValue::Array(items) => Data::List(
            items
                .into_iter()
                .map(|item| node(item, lines, depth + 1))
                .collect::<Result<_, _>>()?,
        ),
        DeValue::Table(inner) => table(inner, lines, depth)?,
    };
    Ok(Node { at, value })
}
