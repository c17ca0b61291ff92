//! Keys whose value is one of a few words. Each set of words is an enum, and a misspelt word is answered with the one that
//! was probably meant.

use serde_json::Value;

use super::error::{nearest, one_of};
use super::syntax::{Data, Node};
use super::value::{Field, Mismatch, Raw};

/// Declares an enum whose values are words.
macro_rules! words {
    ($(#[doc = $doc:literal])* $Name:ident {
        $($(#[doc = $variant_doc:literal])* $Variant:ident = $word:literal,)*
    }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $Name {
            $($(#[doc = $variant_doc])* $Variant,)*
        }

        impl $Name {
            const WORDS: &[&str] = &[$($word),*];

            /// The word as it is written.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$Variant => $word,)* }
            }
        }

        impl Field for $Name {
            fn expected() -> String {
                one_of(Self::WORDS)
            }

            fn read(raw: Raw<'_>) -> Result<Self, Mismatch> {
                let word = match raw {
                    // `show = true`: where a truth value is one of the words, it needs no quotes.
                    Raw::Node(Node { value: Data::Bool(true), .. }) => "true",
                    Raw::Node(Node { value: Data::Bool(false), .. }) => "false",
                    other => other.text().ok_or_else(Mismatch::plain)?,
                };
                match word {
                    $($word => Ok(Self::$Variant),)*
                    other => Err(match nearest(other, Self::WORDS.iter().copied()) {
                        Some(word) => Mismatch::with_help(format!("did you mean `{word}`?")),
                        None => Mismatch::plain(),
                    }),
                }
            }

            fn to_value(&self) -> Value {
                match self.as_str() {
                    "true" => Value::Bool(true),
                    "false" => Value::Bool(false),
                    word => Value::String(word.to_owned()),
                }
            }
        }
    };
}

words! {
    /// How log lines look.
    LogFormat {
        /// For people on a terminal, JSON otherwise.
        Auto = "auto",
        /// For people.
        Human = "human",
        /// One JSON object a line.
        Json = "json",
    }
}

words! {
    /// When the write-ahead log is flushed to the disk.
    Sync {
        /// Before anything is acknowledged.
        Always = "always",
        /// At an interval: what was acknowledged within the last interval can be lost with the machine.
        Interval = "interval",
        /// When the kernel pleases: for tests.
        Never = "never",
    }
}

words! {
    /// Whether the activity of jobs is printed as it happens.
    ShowActivity {
        /// If standard output is a terminal.
        Auto = "auto",
        /// Always.
        Always = "true",
        /// Never.
        Never = "false",
    }
}

words! {
    /// The program that runs a job.
    Program {
        /// One command.
        Command = "command",
        /// Steps with dependencies.
        Plan = "plan",
    }
}

words! {
    /// How urgent a job is.
    Priority {
        /// When there is nothing better to do.
        Background = "background",
        /// After the usual.
        Low = "low",
        /// The usual.
        Normal = "normal",
        /// Before the usual.
        High = "high",
    }
}

words! {
    /// What to do at boot when a job of the same name is already in the log with another specification.
    OnChange {
        /// Say that they conflict, and go on without it.
        Refuse = "refuse",
        /// Keep the earlier job and its result.
        Keep = "keep",
        /// Run the new one as a job of its own.
        Rerun = "rerun",
    }
}

words! {
    /// What a skill of the a2a transport answers a message with.
    SkillAnswer {
        /// The task.
        Task = "task",
        /// What the job gave, as a message without a task.
        Message = "message",
    }
}
