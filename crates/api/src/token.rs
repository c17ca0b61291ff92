//! The bearer token that clients are asked for.

use std::fmt;
use std::sync::Arc;

/// What knows the token that clients must show.
#[derive(Clone)]
pub struct TokenCheck(Arc<dyn Fn(&str) -> bool + Send + Sync>);

impl TokenCheck {
    /// `matches` says whether what a client shows is the token, in a time that does not tell how much of it is right.
    pub fn new(matches: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(matches))
    }

    pub(crate) fn admits(&self, token: &str) -> bool {
        (self.0)(token)
    }
}

impl fmt::Debug for TokenCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenCheck")
    }
}
