//! Random programs: small trees of everything that a program can ask for, and one program that runs any of them.
//!
//! A tale sees to it by itself that it is told the truth about time, and comes to a number that depends on everything it
//! was told, so that a replay that is told anything else comes to another.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use pal::EventKind;
use runtime::{Context, EffectClass, EffectPolicy, Json, ProgramResult, Programs};
use serde::{Deserialize, Serialize};

use crate::ledger::PANIC_ON_PURPOSE;
use crate::{Random, program, tried};

/// One thing to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Deed {
    /// Has an effect carried out.
    Step {
        /// Its class.
        class: EffectClass,
        /// How often it is tried.
        attempts: u32,
        /// How long one try may take.
        timeout_ms: Option<u64>,
        /// How long to wait before the second try.
        backoff_ms: u64,
    },
    /// Sleeps, for so many milliseconds.
    Sleep(u64),
    /// Waits for a signal.
    Signal(String),
    /// Tells watchers something.
    Say(String),
    /// What builds of the program from this one on do, and earlier ones do not.
    Since(u32, Box<Deed>),
    /// Draws a random number.
    Draw,
    /// Keeps the scheduler busy, so many times.
    Spin(u64),
    /// Panics.
    Panic,
    /// One after the other.
    InOrder(Vec<Deed>),
    /// Each in a task of its own.
    Together(Vec<Deed>),
    /// Both, until one is done.
    First(Box<Deed>, Box<Deed>),
    /// For at most so many milliseconds.
    Within(u64, Box<Deed>),
}

/// A whole job: chapters, with a checkpoint after each but the last.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tale {
    chapters: Vec<Deed>,
    is_folded: bool,
}

/// The signals that tales wait for.
pub const SIGNALS: [&str; 2] = ["red", "blue"];

const CLASSES: [EffectClass; 4] = [
    EffectClass::Read,
    EffectClass::Workspace,
    EffectClass::Keyed,
    EffectClass::External,
];

/// The last build of the program, counted from 1.
pub const BUILDS: u32 = 3;

impl Tale {
    /// Any tale.
    pub fn random(random: &mut Random) -> Self {
        let count = 1 + random.below(3);
        let chapters: Vec<_> = (0..count).map(|_| Deed::in_order(random, 2)).collect();
        // A checkpoint is only for who waits for nothing any more.
        let is_foldable = !chapters
            .iter()
            .any(|chapter| chapter.may_leave_children(false));
        Self {
            chapters,
            is_folded: is_foldable,
        }
    }

    /// How many signals of this name it can take, at most.
    #[must_use]
    pub fn signals(&self, name: &str) -> u64 {
        let chapters = self.chapters.iter();
        chapters.map(|chapter| chapter.signals(name)).sum()
    }
}

impl Deed {
    fn in_order(random: &mut Random, depth: u32) -> Self {
        let count = 1 + random.below(3);
        Self::InOrder((0..count).map(|_| Self::random(random, depth)).collect())
    }

    fn random(random: &mut Random, depth: u32) -> Self {
        let deeper = if depth > 0 { 15 } else { 10 };
        match random.below(deeper) {
            0..=4 => Self::Step {
                class: *random.pick(&CLASSES),
                attempts: 1 + random.below(3) as u32,
                timeout_ms: random.percent(30).then(|| 1 + random.below(3_000)),
                backoff_ms: random.below(2_000),
            },
            5 => Self::Sleep(random.below(3_000)),
            6 => Self::Signal((*random.pick(&SIGNALS)).to_owned()),
            // Some are too long to stand in their entry.
            7 => Self::Say("so ".repeat(1 + random.below(60) as usize)),
            8 if random.percent(30) => Self::Spin(1 + random.below(40)),
            8 => Self::Draw,
            9 if random.percent(4) => Self::Panic,
            9 => Self::Sleep(random.below(100_000)),
            10 => Self::in_order(random, depth - 1),
            11 => {
                let count = 2 + random.below(2);
                Self::Together(
                    (0..count)
                        .map(|_| Self::random(random, depth - 1))
                        .collect(),
                )
            }
            12 => Self::First(
                Box::new(Self::random(random, depth - 1)),
                Box::new(Self::random(random, depth - 1)),
            ),
            13 => Self::Within(
                1 + random.below(3_000),
                Box::new(Self::random(random, depth - 1)),
            ),
            _ => Self::Since(
                1 + random.below(BUILDS.into()) as u32,
                Box::new(Self::random(random, depth - 1)),
            ),
        }
    }

    fn signals(&self, name: &str) -> u64 {
        match self {
            Self::Signal(awaited) => u64::from(awaited == name),
            Self::InOrder(deeds) | Self::Together(deeds) => {
                deeds.iter().map(|deed| deed.signals(name)).sum()
            }
            Self::First(a, b) => a.signals(name) + b.signals(name),
            Self::Within(_, deed) | Self::Since(_, deed) => deed.signals(name),
            _ => 0,
        }
    }

    /// Whether children may be at work still when it is done: those of a part that was dropped.
    fn may_leave_children(&self, is_droppable: bool) -> bool {
        match self {
            Self::InOrder(deeds) => deeds.iter().any(|d| d.may_leave_children(is_droppable)),
            Self::Together(deeds) => {
                is_droppable || deeds.iter().any(|d| d.may_leave_children(false))
            }
            Self::First(a, b) => a.may_leave_children(true) || b.may_leave_children(true),
            Self::Within(_, deed) => deed.may_leave_children(true),
            Self::Since(_, deed) => deed.may_leave_children(is_droppable),
            _ => false,
        }
    }

    /// Does it, and says in a number what came of it.
    fn run(self, build: u32, context: Context) -> Pin<Box<dyn Future<Output = u64>>> {
        Box::pin(async move {
            let seen = match self {
                Self::Step {
                    class,
                    attempts,
                    timeout_ms,
                    backoff_ms,
                } => {
                    let policy = EffectPolicy {
                        attempts,
                        timeout: timeout_ms.map(Duration::from_millis),
                        backoff: Duration::from_millis(backoff_ms),
                        ..EffectPolicy::of_class(class)
                    };
                    match tried(&context, class.name(), policy).await {
                        Ok(json) => hash(json.as_str()),
                        Err(error) => hash(&error.code) ^ hash(&error.message),
                    }
                }
                Self::Sleep(ms) => {
                    let begun_ms = context.now_ms();
                    context.sleep(Duration::from_millis(ms)).await;
                    let slept_ms = context.now_ms() - begun_ms;
                    assert!(slept_ms >= ms, "woken after {slept_ms} ms of {ms}");
                    1
                }
                Self::Signal(name) => hash(context.signal(&name).await.as_str()),
                Self::Say(text) => {
                    context.emit(EventKind::Message { step: None, text });
                    2
                }
                Self::Since(since, deed) => {
                    // Each build knows one more branch of every change that it has.
                    let branch = match build.checked_sub(since) {
                        Some(later) => context.version(&format!("since {since}"), later + 1),
                        None => 0,
                    };
                    match branch {
                        0 => 0,
                        _ => mix(branch.into(), deed.run(build, context.clone()).await),
                    }
                }
                Self::Draw => context.random(),
                Self::Spin(times) => {
                    for _ in 0..times {
                        let _ = context.spawn("spin", async {}).await;
                    }
                    9
                }
                Self::Panic => panic!("{PANIC_ON_PURPOSE}"),
                Self::InOrder(deeds) => {
                    let mut seen = 3;
                    for deed in deeds {
                        seen = mix(seen, deed.run(build, context.clone()).await);
                    }
                    seen
                }
                Self::Together(deeds) => {
                    let children: Vec<_> = deeds
                        .into_iter()
                        .map(|deed| context.spawn("child", deed.run(build, context.clone())))
                        .collect();
                    let mut seen = 4;
                    for child in children {
                        seen = mix(seen, child.await.unwrap_or(0));
                    }
                    seen
                }
                Self::First(a, b) => {
                    let (a, b) = (a.run(build, context.clone()), b.run(build, context.clone()));
                    match context.select(a, b).await {
                        runtime::Either::Left(seen) => mix(5, seen),
                        runtime::Either::Right(seen) => mix(6, seen),
                    }
                }
                Self::Within(ms, deed) => {
                    let deed = deed.run(build, context.clone());
                    match context.timeout(Duration::from_millis(ms), deed).await {
                        Ok(seen) => mix(7, seen),
                        Err(_) => 8,
                    }
                }
            };
            mix(seen, context.now_ms())
        })
    }
}

/// What a tale keeps at a checkpoint: which chapter is next, and what it saw so far.
type Folded = (usize, u64);

async fn tell(build: u32, context: Context, input: Json) -> ProgramResult {
    let tale: Tale = input.read().expect("a tale");
    let (next, mut seen): Folded = match context.checkpointed() {
        Some(state) => state.read().expect("what was folded"),
        None => (0, 0),
    };
    let last = tale.chapters.len() - 1;
    for (index, chapter) in tale.chapters.into_iter().enumerate().skip(next) {
        seen = mix(seen, chapter.run(build, context.clone()).await);
        if tale.is_folded && index < last {
            context.checkpoint(Json::of(&(index + 1, seen))).await;
        }
    }
    Ok(Json::of(&seen))
}

/// The one program that runs tales, as this build of it has it.
#[must_use]
pub fn programs(build: u32) -> Programs {
    let tale = program("tale", move |context, input| tell(build, context, input));
    Programs::new().with(tale.version(build))
}

fn hash(text: &str) -> u64 {
    text.bytes().fold(11, |hash, byte| mix(hash, byte.into()))
}

fn mix(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(7) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
