//! Secrets: the config only ever says where one is.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::names::VariableName;
use super::schema::{A2a, Grpc, Http};

/// A secret's text. It cannot be printed, only compared or handed on deliberately.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// A secret of a given text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for what needs it. Nothing that logs may call this.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it equals what somebody presented. The time this takes depends on the length of what was presented,
    /// which the presenter knows, and not on where the two differ, which would give the secret away byte by byte.
    #[must_use]
    pub fn matches(&self, presented: &str) -> bool {
        let secret = self.0.as_bytes();
        let mut difference = secret.len() ^ presented.len();
        for (index, byte) in presented.bytes().enumerate() {
            let own = secret
                .get(index % secret.len().max(1))
                .copied()
                .unwrap_or_default();
            difference |= usize::from(byte ^ own);
        }
        // Keeps the loop from being cut short once a difference is known.
        std::hint::black_box(difference) == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where a secret is to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In the environment.
    Env(VariableName),
    /// In a file. White space around it does not count.
    File(PathBuf),
}

impl SecretSource {
    /// The most a secret's file may hold, in bytes.
    const FILE_MAX: u64 = 16 * 1024;

    /// Where a secret is of which the config names a variable or a file.
    pub(crate) fn of(variable: Option<&VariableName>, file: Option<&PathBuf>) -> Option<Self> {
        let in_variable = variable.cloned().map(Self::Env);
        in_variable.or_else(|| file.cloned().map(Self::File))
    }

    /// Takes the secret from where it is.
    ///
    /// # Errors
    /// With the reason, in words, if it is not there, is empty or is not text.
    pub fn read(&self, environment: &Environment) -> Result<Secret, String> {
        let text = match self {
            Self::Env(name) => {
                let value = environment.variable(name.as_str());
                let value =
                    value.ok_or_else(|| format!("the variable `{}` is not set", name.as_str()))?;
                let text = value.to_str();
                text.ok_or_else(|| format!("the variable `{}` is not UTF-8 text", name.as_str()))?
                    .to_owned()
            }
            Self::File(path) => {
                let mut text = String::new();
                let file = File::open(path);
                file.and_then(|file| file.take(Self::FILE_MAX + 1).read_to_string(&mut text))
                    .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
                if text.len() as u64 > Self::FILE_MAX {
                    return Err(format!(
                        "{} is larger than {} bytes",
                        path.display(),
                        Self::FILE_MAX
                    ));
                }
                text
            }
        };
        let text = text.trim();
        if text.is_empty() {
            return Err("it is empty".to_owned());
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("it holds characters that cannot stand in an HTTP header".to_owned());
        }
        Ok(Secret(text.to_owned()))
    }
}

/// Where the certificates of a section are.
#[derive(Clone, Copy, Debug)]
pub struct TlsSource<'a> {
    /// Its own.
    pub certificate: &'a Path,
    /// The key of its own.
    pub key: &'a Path,
    /// Those that clients' must lead to, if clients are asked for one.
    pub client_ca: Option<&'a Path>,
}

impl<'a> TlsSource<'a> {
    fn of(
        certificate: Option<&'a Path>,
        key: Option<&'a Path>,
        client_ca: Option<&'a Path>,
    ) -> Option<Self> {
        Some(Self {
            certificate: certificate?,
            key: key?,
            client_ca,
        })
    }
}

impl Http {
    /// Where the bearer token is, if one is asked for.
    #[must_use]
    pub fn token(&self) -> Option<SecretSource> {
        SecretSource::of(self.token_env.as_ref(), self.token_file.as_ref())
    }
}

/// What the sections of transports over TCP say alike.
macro_rules! over_tcp {
    ($($Section:ty),*) => {$(
        impl $Section {
            /// Where the bearer token is, if one is asked for.
            #[must_use]
            pub fn token(&self) -> Option<SecretSource> {
                SecretSource::of(self.token_env.as_ref(), self.token_file.as_ref())
            }

            /// Where the certificates are, if it is served over TLS.
            #[must_use]
            pub fn tls(&self) -> Option<TlsSource<'_>> {
                TlsSource::of(
                    self.tls_cert_file.as_deref(),
                    self.tls_key_file.as_deref(),
                    self.tls_client_ca_file.as_deref(),
                )
            }
        }
    )*};
}

over_tcp!(Grpc, A2a);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_secret_matches() {
        let secret = Secret::new("correct-horse");
        assert!(secret.matches("correct-horse"));
        for wrong in [
            "",
            "correct-hors",
            "correct-horsf",
            "correct-horsecorrect-horse",
            "Correct-horse",
        ] {
            assert!(!secret.matches(wrong), "{wrong}");
        }
        assert!(!Secret::new("").matches("x"));
    }

    #[test]
    fn a_secret_is_never_printed() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(…)");
    }

    #[test]
    fn a_file_may_end_with_a_newline_and_must_hold_something() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let read = |content: &str| {
            std::fs::write(&path, content).unwrap();
            SecretSource::File(path.clone()).read(&Environment::default())
        };
        assert!(read("abc\n").unwrap().matches("abc"));
        assert_eq!(read(" \n").unwrap_err(), "it is empty");
        assert!(read("a\nb").is_err());
        assert!(read(&"x".repeat(20_000)).is_err());
    }
}
