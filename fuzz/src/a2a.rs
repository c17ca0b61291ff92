//! Requests of Agent2Agent clients: the parameters of an operation, as JSON or as protocol buffers.
//!
//! The input is a line that names the operation and the form (`SendMessage json`, `GetTask protobuf`), and all the rest is the
//! parameters. Whatever they say:
//! - they are read or refused;
//! - what is read can be written and read again;
//! - of a message that is taken nothing is lost on its way into a job and back;
//! - an address for notifications that is taken is one of TLS, and the same when it is looked at again.

/// Reads a request.
pub fn run(data: &[u8]) {
    let mut parts = data.splitn(2, |&byte| byte == b'\n');
    let line = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let body = parts.next().unwrap_or_default();
    if let Some((operation, form)) = line.split_once(' ') {
        let _ = api::a2a::fuzz::read(operation, form == "json", body);
    }
}
