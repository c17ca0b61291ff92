//! Deterministic randomness for programs: a stream of numbers that depends on the job's id alone.

use crate::ids::JobId;

/// The output function of splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
/// OOPSLA 2014).
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// splitmix64, seeded from a job's id. Good for jitter, shuffles and names; not for secrets, since anyone who knows
/// the id knows the numbers.
#[derive(Clone, Debug)]
pub(crate) struct JobRandom {
    seed: u64,
    drawn: u64,
}

impl JobRandom {
    /// The stream of a job, from its beginning.
    pub(crate) fn new(job: JobId) -> Self {
        let id = job.as_u128();
        Self {
            seed: mix((id >> 64) as u64 ^ mix(id as u64)),
            drawn: 0,
        }
    }

    /// How many numbers were drawn: what a checkpoint keeps.
    pub(crate) fn drawn(&self) -> u64 {
        self.drawn
    }

    /// Goes on after the first `drawn` numbers.
    pub(crate) fn skip_to(&mut self, drawn: u64) {
        self.drawn = drawn;
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        self.drawn += 1;
        mix(self
            .seed
            .wrapping_add(self.drawn.wrapping_mul(GOLDEN_GAMMA)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_job_draws_the_same_numbers_and_can_go_on_in_the_middle() {
        let job = JobId::from_parts(5, 9);
        let mut first = JobRandom::new(job);
        let all: Vec<_> = (0..8).map(|_| first.next()).collect();
        let mut second = JobRandom::new(job);
        second.skip_to(3);
        assert_eq!(second.next(), all[3]);
        assert_ne!(JobRandom::new(JobId::from_parts(5, 10)).next(), all[0]);
    }

    /// Journals of programs that drew numbers hold what came of them: the stream is part of the journal's format.
    #[test]
    fn the_numbers_of_a_job_never_change() {
        let mut random = JobRandom::new(JobId::from_parts(5, 9));
        let drawn: Vec<_> = (0..3).map(|_| random.next()).collect();
        assert_eq!(
            drawn,
            [
                8_496_783_553_883_070_209,
                8_698_553_503_134_496_426,
                1_901_797_638_716_744_083,
            ]
        );
    }
}
