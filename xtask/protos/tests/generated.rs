//! What is committed is what the `.proto` files say.

use protos::{DESCRIPTORS, GENERATED, RUST};

#[test]
fn the_committed_code_is_what_the_files_give() {
    let root = protos::root();
    let made = tempfile::tempdir().unwrap();
    protos::generate(&root, made.path()).unwrap();
    for name in [RUST, DESCRIPTORS] {
        let committed = std::fs::read(root.join(GENERATED).join(name)).unwrap();
        let fresh = std::fs::read(made.path().join(name)).unwrap();
        assert!(
            committed == fresh,
            "{GENERATED}/{name} is not what proto/ gives: run `cargo xtask proto`"
        );
    }
}
