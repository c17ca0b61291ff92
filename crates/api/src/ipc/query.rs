//! What stands in a request's address: the parts of its path, and its parameters.

use std::borrow::Cow;
use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use crate::fault::Fault;

/// A part of a path as its client meant it.
pub(super) fn segment(encoded: &str) -> Result<String, Fault> {
    percent_decode_str(encoded)
        .decode_utf8()
        .map(Cow::into_owned)
        .map_err(|_| Fault::invalid(format!("`{encoded}` in the path is not UTF-8")))
}

/// The parameters of a request, each to be taken once; what is left over is an error.
pub(super) struct Parameters(BTreeMap<String, Vec<String>>);

impl Parameters {
    pub(super) fn of(query: Option<&str>) -> Self {
        let mut parameters: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let values = parameters.entry(name.into_owned()).or_default();
            values.push(value.into_owned());
        }
        Self(parameters)
    }

    /// All values of a parameter.
    pub(super) fn all(&mut self, name: &str) -> Vec<String> {
        self.0.remove(name).unwrap_or_default()
    }

    /// The one value of a parameter, if it is there.
    pub(super) fn one(&mut self, name: &str) -> Result<Option<String>, Fault> {
        let mut values = self.all(name);
        match values.len() {
            0 | 1 => Ok(values.pop()),
            _ => Err(wrong(name, "is given more than once")),
        }
    }

    /// The one value of a parameter, as a word or number of a kind that `expected` describes.
    pub(super) fn parsed<T: DeserializeOwned>(
        &mut self,
        name: &str,
        expected: &str,
    ) -> Result<Option<T>, Fault> {
        let Some(value) = self.one(name)? else {
            return Ok(None);
        };
        parse(name, &value, expected).map(Some)
    }

    /// The values of a parameter that may be given several times, or once with commas.
    pub(super) fn words<T: DeserializeOwned>(
        &mut self,
        name: &str,
        expected: &str,
    ) -> Result<Vec<T>, Fault> {
        let values = self.all(name);
        let words = values.iter().flat_map(|value| value.split(','));
        words.map(|word| parse(name, word, expected)).collect()
    }

    /// Labels: `label=KEY=VALUE`, as often as wanted.
    pub(super) fn labels(&mut self) -> Result<BTreeMap<String, String>, Fault> {
        let pairs = self.all("label").into_iter().map(|pair| {
            pair.split_once('=')
                .map(|(label, value)| (label.to_owned(), value.to_owned()))
                .ok_or_else(|| wrong("label", "is not of the form `LABEL=VALUE`"))
        });
        pairs.collect()
    }

    /// Says that there are no others.
    pub(super) fn finish(self, known: &str) -> Result<(), Fault> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => {
                let known = if known.is_empty() { "none" } else { known };
                Err(wrong(name, &format!("is unknown; there are: {known}")))
            }
        }
    }
}

fn parse<T: DeserializeOwned>(name: &str, value: &str, expected: &str) -> Result<T, Fault> {
    // What begins like a number is one, or nothing; white space and quotes are no part of either.
    let is_bare = !value.starts_with(|first: char| first.is_whitespace() || first == '"')
        && !value.ends_with(char::is_whitespace);
    let as_number = is_bare.then(|| serde_json::from_str(value).ok()).flatten();
    as_number
        .ok_or(())
        .or_else(|()| serde_json::from_value(serde_json::Value::String(value.to_owned())))
        .map_err(|_| wrong(name, &format!("is `{value}`, expected {expected}")))
}

fn wrong(name: &str, what: &str) -> Fault {
    Fault::invalid_at(
        format!("/query/{name}"),
        format!("parameter `{name}` {what}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::JobState;

    #[test]
    fn parameters_are_taken_once_and_what_is_left_is_an_error() {
        let mut parameters = Parameters::of(Some(
            "limit=3&state=running,waiting&state=stuck&label=a%3D=b%20c",
        ));
        assert_eq!(parameters.parsed("limit", "a number").unwrap(), Some(3));
        let states: Vec<JobState> = parameters.words("state", "a state").unwrap();
        assert_eq!(
            states,
            [JobState::Running, JobState::Waiting, JobState::Stuck]
        );
        assert_eq!(
            parameters.labels().unwrap().into_iter().next(),
            Some(("a".to_owned(), "=b c".to_owned()))
        );
        parameters.finish("limit, state, label").unwrap();
        let refused = Parameters::of(Some("limti=3")).finish("limit").unwrap_err();
        assert!(refused.message.contains("`limti`"), "{refused}");
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_named() {
        let mut parameters = Parameters::of(Some("limit=many&state=asleep&after=1&after=2"));
        let wrong: Result<Option<u64>, _> = parameters.parsed("limit", "a number");
        assert!(wrong.unwrap_err().message.contains("`many`"));
        let wrong: Result<Vec<JobState>, _> = parameters.words("state", "a state");
        assert!(wrong.unwrap_err().message.contains("`asleep`"));
        let wrong = parameters.one("after").unwrap_err();
        assert!(wrong.message.contains("more than once"));
    }

    #[test]
    fn a_value_is_taken_as_it_stands() {
        for odd in ["+3", " 3", "3 ", "%223%22", "3.0", "-0", "0x3", "%0A3", ""] {
            let mut parameters =
                Parameters::of(Some(&format!("limit={}", odd.replace('+', "%2B"))));
            let read: Result<Option<u64>, _> = parameters.parsed("limit", "a number");
            assert!(read.is_err(), "`{odd}` is no number: {read:?}");
        }
        let mut parameters = Parameters::of(Some("stream=%22stdout%22"));
        let read: Result<Option<pal::Stream>, _> = parameters.parsed("stream", "a stream");
        assert!(read.is_err(), "{read:?}");
    }

    #[test]
    fn a_part_of_a_path_is_what_its_client_meant() {
        assert_eq!(segment("a%2Fb%20c").unwrap(), "a/b c");
        assert!(segment("%ff").is_err());
    }
}
