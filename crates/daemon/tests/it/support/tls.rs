//! Certificates that are made for a test.

use std::process::Command;

use super::Node;

/// Runs openssl in the node's place.
fn openssl(node: &Node, args: &[&str]) -> Result<(), String> {
    let output = Command::new("openssl")
        .args(args)
        .current_dir(node.place.path(""))
        .output()
        .map_err(|error| format!("no openssl ({error})"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {args:?}: {said}");
    Ok(())
}

/// An authority, and a certificate of it for `name`.
pub(crate) fn certificate(node: &Node, authority: &str, name: &str) -> Result<(), String> {
    let ca = (format!("{authority}.crt"), format!("{authority}.key"));
    const NEW: [&str; 6] = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
    ];
    if !node.place.path(&ca.0).exists() {
        let subject = format!("/CN={authority}");
        let mut args = vec!["req", "-x509"];
        args.extend(NEW);
        args.extend(["2", "-keyout", &ca.1, "-out", &ca.0, "-subj", &subject]);
        openssl(node, &args)?;
    }
    let (subject, key, crt) = (
        format!("/CN={name}"),
        format!("{name}.key"),
        format!("{name}.crt"),
    );
    let mut args = vec!["req", "-x509", "-CA", &ca.0, "-CAkey", &ca.1];
    args.extend(NEW);
    args.extend(["1", "-keyout", &key, "-out", &crt, "-subj", &subject]);
    args.extend([
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ]);
    openssl(node, &args)
}
