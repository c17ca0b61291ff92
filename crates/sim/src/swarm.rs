//! What a seed lets go wrong, and how often.
//!
//! The one idea is *swarm testing* (Groce, Zhang, Eide, Chen and Regehr, "Swarm Testing", ISSTA 2012): a run in which
//! everything goes wrong a little finds less than many runs in each of which some things go wrong a lot and others not
//! at all. A disk that fails every twentieth step never lets a job get far enough to meet the rarer trouble. So each seed
//! leaves out about half of all faults, and draws the rate of each that is left, as it does with the pace of every part.

use std::time::Duration;

use runtime::Limits;

use crate::{Random, Setup};

/// How often something happens: in so many of 1,000 steps. 0 is never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub u64);

impl Rate {
    fn random(random: &mut Random, most: u64) -> Self {
        let is_left_out = random.percent(50);
        Self(if is_left_out {
            0
        } else {
            1 + random.below(most)
        })
    }

    /// Whether it happens now.
    pub fn strikes(self, random: &mut Random) -> bool {
        self.0 > 0 && random.below(1_000) < self.0
    }
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub struct Faults {
    /// The machine loses its power between two steps.
    pub power_loss: Rate,
    /// The machine loses its power some changes of the disk later, in the middle of whatever that is.
    pub power_cut: Rate,
    /// The process is killed.
    pub kill: Rate,
    /// Power is lost, or the disk fails, while the log is recovered: in so many of 1,000 starts.
    pub at_start: Rate,
    /// A sync fails.
    pub failed_sync: Rate,
    /// A write, or making room for a segment, fails.
    pub failed_write: Rate,
    /// Something with the names of files fails.
    pub failed_name: Rate,
    /// The disk is full, for a while.
    pub full_disk: Rate,
    /// Syncs take their time from now on.
    pub slow_syncs: Rate,
    /// The wall clock is set, by hours or by seconds.
    pub wall_clock: Rate,
    /// Nothing happens for minutes.
    pub pause: Rate,
    /// The process is asked to end.
    pub shutdown: Rate,
    /// A job is not wanted any more.
    pub cancel: Rate,
    /// A result comes once more.
    pub duplicate: Rate,
    /// A client asks once more for what it has.
    pub resubmission: Rate,
    /// Somebody looks for blobs that nobody names.
    pub leftovers: Rate,
    /// A later build of the program is installed: in so many of 1,000 starts.
    pub upgrade: Rate,
}

/// How often each part gets to do something, against each other.
#[derive(Clone, Debug)]
pub struct Pace {
    /// The engine takes a turn.
    pub turn: u64,
    /// The log's writer works.
    pub write: u64,
    /// The engine hears of what the writer did.
    pub report: u64,
    /// The world answers.
    pub answer: u64,
    /// A client calls.
    pub call: u64,
    /// Time goes on by a little.
    pub time: u64,
}

/// What becomes of effects, of 100.
#[derive(Clone, Debug)]
pub struct World {
    /// It fails, and might not the next time.
    pub transient: u64,
    /// It fails for good.
    pub permanent: u64,
    /// Its handler panics, or forgets about it.
    pub vanishes: u64,
    /// It runs until somebody ends it.
    pub hangs: u64,
    /// It runs and does not end when asked to.
    pub stubborn: u64,
    /// What it gives is large.
    pub large: u64,
}

/// All that a seed decides beforehand.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// What goes wrong.
    pub faults: Faults,
    /// Who gets to do how much.
    pub pace: Pace,
    /// What effects do.
    pub world: World,
    /// How many clients there are, each with a job.
    pub clients: u64,
    /// For how many steps things go wrong.
    pub storm_steps: u64,
    /// The most submissions that become one frame.
    pub group_max: u64,
    /// How the node is set up.
    pub setup: Setup,
    /// Whether it is looked at whether every task gets its share. It takes time.
    pub is_watched: bool,
}

impl Swarm {
    /// What this seed's generator decides.
    pub fn random(seed: u64, random: &mut Random) -> Self {
        let mut rate = |most| Rate::random(random, most);
        let faults = Faults {
            power_loss: rate(15),
            power_cut: rate(25),
            kill: rate(15),
            at_start: rate(400),
            failed_sync: rate(8),
            failed_write: rate(8),
            failed_name: rate(8),
            full_disk: rate(15),
            slow_syncs: rate(20),
            wall_clock: rate(20),
            pause: rate(30),
            shutdown: rate(8),
            cancel: rate(10),
            duplicate: rate(40),
            resubmission: rate(40),
            leftovers: rate(20),
            upgrade: rate(500),
        };
        let mut pace = || 1 + random.below(8);
        let pace = Pace {
            turn: pace(),
            write: pace(),
            report: pace(),
            answer: pace(),
            call: pace(),
            time: pace(),
        };
        let mut share = |most| {
            if random.percent(40) {
                0
            } else {
                random.below(most)
            }
        };
        let world = World {
            transient: share(40),
            permanent: share(10),
            vanishes: share(10),
            hangs: share(15),
            stubborn: share(10),
            large: share(50),
        };
        let setup = Setup {
            limits: Limits {
                live_jobs: 2 + random.below(6) as usize,
                running_effects: 1 + random.below(6) as usize,
                turn_polls: 8 + random.below(40),
                ..Limits::default()
            },
            retention: Duration::from_millis(*random.pick(&[0, 0, 1_000, 60_000, 3_600_000])),
            threshold_bytes: *random.pick(&[40, 120, 400]),
            segment_bytes: *random.pick(&[4 << 10, 4 << 10, 8 << 10, 64 << 10]),
            seed,
            ..Setup::default()
        };
        Self {
            faults,
            pace,
            world,
            clients: 1 + random.below(7),
            storm_steps: match random.below(10) {
                0 => 1_000 + random.below(1_000),
                _ => 50 + random.below(450),
            },
            group_max: 1 + random.below(3),
            setup,
            is_watched: random.percent(20),
        }
    }
}
