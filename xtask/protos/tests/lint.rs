//! The rules of `buf lint` (categories STANDARD and COMMENTS, see `proto/buf.yaml`) that matter to us, without buf.

use std::collections::{BTreeMap, BTreeSet};

use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto};

const PACKAGE: &str = "tinkerbell.v1";

/// The comments of a file, by the path of what they stand above (`SourceCodeInfo.Location.path`).
fn comments(file: &FileDescriptorProto) -> BTreeMap<Vec<i32>, String> {
    let info = file.source_code_info.as_ref().expect("it was asked for");
    let locations = info.location.iter();
    locations
        .filter_map(|location| {
            let text = location.leading_comments.clone()?;
            Some((location.path.clone(), text))
        })
        .collect()
}

struct Lint<'a> {
    file: &'a FileDescriptorProto,
    comments: BTreeMap<Vec<i32>, String>,
    wrong: Vec<String>,
}

impl Lint<'_> {
    fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(format!("{}: {}", self.file.name(), what()));
        }
    }

    fn commented(&mut self, path: &[i32], name: &str) {
        let comment = self.comments.get(path).cloned().unwrap_or_default();
        self.check(!comment.trim().is_empty(), || {
            format!("`{name}` has no comment")
        });
    }

    fn message(&mut self, path: &[i32], message: &DescriptorProto) {
        if message
            .options
            .as_ref()
            .is_some_and(prost_types::MessageOptions::map_entry)
        {
            return;
        }
        let name = message.name();
        self.commented(path, name);
        self.check(is_pascal(name), || {
            format!("message `{name}` is not in PascalCase")
        });
        for (index, field) in indexed(&message.field) {
            let field_name = field.name();
            self.commented(&at(path, 2, index), &format!("{name}.{field_name}"));
            self.check(is_snake(field_name), || {
                format!("{name}.{field_name} is not in snake_case")
            });
        }
        for (index, oneof) in indexed(&message.oneof_decl) {
            // `optional` is a oneof of one field, made up by the compiler.
            if !oneof.name().starts_with('_') {
                self.commented(&at(path, 8, index), &format!("{name}.{}", oneof.name()));
            }
        }
        for (index, nested) in indexed(&message.nested_type) {
            self.message(&at(path, 3, index), nested);
        }
        for (index, nested) in indexed(&message.enum_type) {
            self.enumeration(&at(path, 4, index), nested);
        }
    }

    fn enumeration(&mut self, path: &[i32], enumeration: &EnumDescriptorProto) {
        let name = enumeration.name();
        let prefix = screaming(name);
        self.commented(path, name);
        let first = enumeration.value.first().expect("an enum has a value");
        self.check(
            first.number() == 0 && first.name() == format!("{prefix}_UNSPECIFIED"),
            || format!("the zero of `{name}` is not {prefix}_UNSPECIFIED"),
        );
        for (index, value) in indexed(&enumeration.value) {
            self.commented(&at(path, 2, index), value.name());
            let has_prefix = value.name().starts_with(&format!("{prefix}_"));
            self.check(has_prefix, || {
                format!("`{}` does not begin with {prefix}_", value.name())
            });
        }
    }
}

fn at(path: &[i32], field: i32, index: i32) -> Vec<i32> {
    [path, &[field, index]].concat()
}

fn indexed<T>(items: &[T]) -> impl Iterator<Item = (i32, &T)> {
    (0..).zip(items)
}

fn is_pascal(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase()) && !name.contains('_')
}

fn is_snake(name: &str) -> bool {
    name.chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn screaming(pascal: &str) -> String {
    let mut screaming = String::new();
    for c in pascal.chars() {
        if c.is_ascii_uppercase() && !screaming.is_empty() {
            screaming.push('_');
        }
        screaming.push(c.to_ascii_uppercase());
    }
    screaming
}

#[test]
fn the_files_keep_the_rules() {
    let set = protos::described(&protos::root()).unwrap();
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    let mut seen = 0;
    for file in &set.file {
        let mut lint = Lint {
            file,
            comments: comments(file),
            wrong: Vec::new(),
        };
        lint.check(file.package() == PACKAGE, || {
            format!("its package is not {PACKAGE}")
        });
        let is_at_home = file.name().starts_with("tinkerbell/v1/");
        lint.check(is_at_home, || {
            "it is not in the directory of its package".to_owned()
        });
        lint.check(file.syntax() == "proto3", || "it is not proto3".to_owned());
        for (index, message) in indexed(&file.message_type) {
            lint.message(&[4, index], message);
        }
        for (index, enumeration) in indexed(&file.enum_type) {
            lint.enumeration(&[5, index], enumeration);
        }
        for (index, service) in indexed(&file.service) {
            let name = service.name();
            lint.commented(&[6, index], name);
            lint.check(name.ends_with("Service"), || {
                format!("`{name}` does not end in Service")
            });
            for (method_index, method) in indexed(&service.method) {
                seen += 1;
                let rpc = method.name();
                lint.commented(&[6, index, 2, method_index], &format!("{name}.{rpc}"));
                for (given, kind) in [
                    (method.input_type(), "Request"),
                    (method.output_type(), "Response"),
                ] {
                    let standard = [
                        format!(".{PACKAGE}.{rpc}{kind}"),
                        format!(".{PACKAGE}.{name}{rpc}{kind}"),
                    ];
                    let is_standard = standard.iter().any(|standard| standard == given);
                    lint.check(is_standard, || {
                        format!("{name}.{rpc} has `{given}` for {kind}")
                    });
                    let is_new = used.insert(given.to_owned());
                    lint.check(is_new, || format!("`{given}` is used by two methods"));
                }
            }
        }
        wrong.append(&mut lint.wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(seen, 17, "every method was looked at");
}
