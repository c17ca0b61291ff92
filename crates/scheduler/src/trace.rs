//! One number for the whole history of a run.
//!
//! Every syscall and every decision of the scheduler is folded into 64 bits as it happens: what was done,
//! by whom, with which operand. Two runs that do the same in the same order end with the same number, and
//! the first difference changes it for good, so comparing two runs is comparing two integers.
//!
//! The mixing step is the *folded multiply* of wyhash (Wang Yi, `wymum`): both halves of a 64 × 64 → 128 bit
//! product xor-ed together. It takes in two words for one multiplication, some five cycles, which is why the
//! hash can always be on.

/// What is folded in. The numbers are part of the hash, so they are written out: to reorder the list is
/// not to change the hash.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(crate) enum Op {
    Spawn = 1,
    Poll = 2,
    Returned = 3,
    Panicked = 4,
    Cancelled = 5,
    Yield = 6,
    Sleep = 7,
    SleepDue = 8,
    Fired = 9,
    Unsleep = 10,
    Wait = 11,
    PermitTaken = 12,
    Granted = 13,
    PermitKept = 14,
    Broadcast = 15,
    Unwait = 16,
    Clear = 17,
    Join = 18,
    Joined = 19,
    Detach = 20,
    Cancel = 21,
    Advance = 22,
    Key = 23,
    SelectLeft = 24,
    SelectRight = 25,
    Refused = 26,
}

/// Any odd number with well spread bits will do; this one is the fractional part of the golden ratio,
/// the multiplier of Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4).
pub(crate) const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Both halves of the double-width product, xor-ed.
#[inline]
const fn folded_multiply(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    (product as u64) ^ ((product >> 64) as u64)
}

/// The running hash of a run.
///
/// It is **not cryptographic**: whoever may choose what a program does can make two different runs end
/// with the same number. Between honest runs two histories agree by chance once in 2⁶⁴.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceHash(u64);

impl TraceHash {
    pub(crate) const fn new() -> Self {
        Self(SPREAD)
    }

    /// The history so far, as a number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Folds in one event: `op`, done by or to the task in slot `task`, with `operand`.
    #[inline]
    pub(crate) const fn record(&mut self, op: Op, task: u32, operand: u64) {
        let head = (op as u64) << 32 | task as u64;
        self.0 = folded_multiply(self.0 ^ head, SPREAD ^ operand);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn order_and_every_operand_count() {
        let events = [
            (Op::Yield, 1, 0),
            (Op::Wait, 1, 0),
            (Op::Yield, 2, 0),
            (Op::Yield, 1, 1),
        ];
        let mut seen = BTreeSet::new();
        for (op1, task1, operand1) in events {
            for (op2, task2, operand2) in events {
                let mut hash = TraceHash::new();
                hash.record(op1, task1, operand1);
                hash.record(op2, task2, operand2);
                seen.insert(hash.get());
            }
        }
        assert_eq!(seen.len(), events.len() * events.len());
    }
}
