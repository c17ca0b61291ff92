//! The records of a log: what they mean, what recovery makes of them, and what the engine then does.
//!
//! The input is one byte that says whether the log is whole or its beginning was released, then records, each a length
//! of two bytes (little endian) and its bytes. Whatever they are:
//! - a record that can be read is written as bytes that are read as the same;
//! - an engine that took a log in goes on from it, and what it adds can be taken in again.

use runtime::Recovery;
use runtime::entry::Record;
use wal::Lsn;
use wal::sim::MemStorage;

use super::machine::Machine;

/// Reads records, recovers from them and goes on.
pub fn run(data: &[u8]) {
    let Some((form, mut rest)) = data.split_first() else {
        return;
    };
    let first = if form % 2 == 0 { 1 } else { 1000 };
    let mut records = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(tail.len());
        let (record, tail) = tail.split_at(length);
        rest = tail;
        if keeps(record) {
            records.push(record.to_vec());
        }
    }
    let disk = MemStorage::new(1);
    let Ok(mut machine) = Machine::boot(disk, first, records) else {
        return;
    };
    machine.run();
    let states = machine.states();
    for (job, _) in &states {
        // Of a log that nobody wrote, a replay may say anything but that it panicked.
        let _ = machine.replay(*job);
    }
    let again = Machine::boot(machine.disk(), first, machine.records().to_vec());
    if let Err(error) = again {
        panic!("what the engine wrote cannot be taken in: {error}");
    }
}

/// Whether a record can be read; if so, that it stays what it is.
fn keeps(bytes: &[u8]) -> bool {
    let record = match Record::decode(bytes) {
        Ok(record) => record,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            let refused = Recovery::new().take_in(Lsn::FIRST, bytes);
            assert!(
                refused.is_err(),
                "a record that nobody can read was taken in"
            );
            return false;
        }
    };
    let encoded = record.encode();
    let again = Record::decode(&encoded).expect("what we wrote can be read");
    assert_eq!(again, record);
    assert_eq!(again.encode(), encoded);
    if let Record::Job(_, entry) = &record {
        assert!(entry.agrees_with(entry));
        assert!(!entry.describe().is_empty());
        let _ = (entry.step(), entry.is_generated(), entry.is_note());
        entry.visit_blobs(|_| {});
    }
    true
}
