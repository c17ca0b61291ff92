//! Requests of clients: the target of the request's line, and the JSON of its body.
//!
//! The input is text in lines: method, target, and all the rest is the body. Whatever they say:
//! - it is read or refused, with words, in bounded memory;
//! - what is read can be written and read again, and is the same.

/// Reads a request.
pub fn run(data: &[u8]) {
    let mut parts = data.splitn(3, |&byte| byte == b'\n');
    let mut line = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let (method, target) = (line(), line());
    let body = parts.next().unwrap_or_default();
    if let Some(Err(fault)) = api::ipc::fuzz::read(&method, &target, body) {
        assert!(!fault.message.is_empty());
        assert!(
            fault.message.len() < 1024 + 8 * data.len(),
            "{}",
            fault.message.len()
        );
    }
}
