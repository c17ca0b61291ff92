//! Looking into a log: printing it, checking it, finding a job in it, replaying a job.
//!
//! All of it reads the log's files without holding them, so it works beside a running daemon and changes nothing.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use runtime::entry::{Entry, Record};
use runtime::{JobId, JobResult, Payloads, Recorded, ReplayError, Replayed};
use serde_json::{Map, Value, json};
use wal::{BlobStore, Lsn, OsStorage, ReadError, Reader, Storage};

use crate::boot::DataDir;

/// Why a log could not be looked into.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// There is nothing there.
    #[error("there is no log in {0}")]
    NoLog(std::path::PathBuf),
    /// The log cannot be read, or is damaged.
    #[error("cannot read the log: {0}")]
    Read(#[from] ReadError),
    /// The blobs cannot be reached.
    #[error("cannot open the blobs: {0}")]
    Blobs(#[from] wal::BlobError),
    /// A record that this build does not know.
    #[error("cannot read the record at LSN {lsn}: {source}")]
    Decode {
        /// Where it stands.
        lsn: Lsn,
        /// What is wrong with it.
        source: runtime::entry::DecodeError,
    },
    /// No job fits.
    #[error("no job in the log is called `{0}`, by id, beginning or end of an id, or name")]
    NoSuchJob(String),
    /// Several jobs fit.
    #[error("`{given}` fits {} jobs: {}", jobs.len(), list(jobs))]
    Ambiguous {
        /// What was asked for.
        given: String,
        /// What fits.
        jobs: Vec<JobId>,
    },
    /// The job cannot be replayed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// What was found could not be written.
    #[error("cannot write: {0}")]
    Write(#[from] std::io::Error),
}

fn list(jobs: &[JobId]) -> String {
    const SHOWN: usize = 5;
    let mut text = jobs
        .iter()
        .take(SHOWN)
        .map(JobId::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    if jobs.len() > SHOWN {
        text.push_str(", …");
    }
    text
}

/// A log that is looked into.
#[derive(Debug)]
pub struct LogView {
    data_dir: DataDir,
    storage: Arc<dyn Storage>,
}

impl LogView {
    /// The log of a data directory.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn open(data_dir: &Path) -> Result<Self, InspectError> {
        let data_dir = DataDir::new(data_dir);
        if !data_dir.wal().is_dir() {
            return Err(InspectError::NoLog(data_dir.wal()));
        }
        Ok(Self {
            data_dir,
            storage: Arc::new(OsStorage::new()),
        })
    }

    fn records(
        &self,
        from: Lsn,
        mut visit: impl FnMut(Lsn, Record, &[u8]) -> Result<bool, InspectError>,
    ) -> Result<(), InspectError> {
        let mut reader = Reader::open(self.data_dir.wal(), Arc::clone(&self.storage), from)?;
        while let Some((lsn, bytes)) = reader.next_record()? {
            let record =
                Record::decode(bytes).map_err(|source| InspectError::Decode { lsn, source })?;
            if !visit(lsn, record, bytes)? {
                break;
            }
        }
        Ok(())
    }

    /// Prints records as JSON lines: all from `from` on, or those of one job.
    ///
    /// # Errors
    ///
    /// If the log cannot be read, or the output not written.
    pub fn cat(
        &self,
        from: Lsn,
        job: Option<JobId>,
        out: &mut impl Write,
    ) -> Result<(), InspectError> {
        self.records(from, |lsn, record, _| {
            let wanted = match (&record, job) {
                (_, None) => true,
                (Record::Job(owner, _), Some(job)) => *owner == job,
                (Record::Node(_), Some(_)) => false,
            };
            if wanted {
                serde_json::to_writer(&mut *out, &record_to_json(lsn, &record))
                    .map_err(std::io::Error::from)?;
                writeln!(out)?;
            }
            Ok(true)
        })
    }

    /// Reads everything and checks it: every checksum, that every record is one that this build knows, and every blob
    /// that is named.
    ///
    /// # Errors
    ///
    /// What is damaged, and where.
    pub fn verify(&self) -> Result<Value, InspectError> {
        let verified = wal::verify(self.data_dir.wal(), Arc::clone(&self.storage))?;
        let blobs = BlobStore::open(self.data_dir.blobs(), Arc::clone(&self.storage))?;
        let (mut jobs, mut finished) = (0u64, 0u64);
        let mut named = std::collections::BTreeSet::new();
        self.records(Lsn::FIRST, |_, record, _| {
            if let Record::Job(_, entry) = record {
                jobs += u64::from(matches!(entry, Entry::Submitted { .. }));
                finished += u64::from(matches!(entry, Entry::Finished { .. }));
                entry.visit_blobs(|blob| {
                    named.insert(blob);
                });
            }
            Ok(true)
        })?;
        for blob in &named {
            blobs.get(wal::BlobId(*blob))?;
        }
        Ok(json!({
            "segments": verified.segments,
            "frames": verified.frames,
            "records": verified.records,
            "first_lsn": verified.first_lsn.map(|lsn| lsn.0),
            "last_lsn": verified.last_lsn.map(|lsn| lsn.0),
            "bytes": verified.bytes,
            "jobs_submitted": jobs,
            "jobs_finished": finished,
            "blobs": named.len(),
            "torn_bytes": verified.torn.as_ref().map(|torn| torn.bytes),
        }))
    }

    /// The job meant by an id, the beginning or the end of one, or a name. Of several jobs of one name it is the newest.
    ///
    /// # Errors
    ///
    /// If none fits, or several do.
    pub fn resolve(&self, given: &str) -> Result<JobId, InspectError> {
        let mut named = None;
        let mut begun = Vec::new();
        self.records(Lsn::FIRST, |_, record, _| {
            if let Record::Job(job, Entry::Submitted { spec, .. }) = record {
                if spec.name.as_deref() == Some(given) {
                    named = Some(job);
                }
                // People see the end of an id, since ids of one minute begin alike; programs cut the beginning.
                if job.is_called(given) {
                    begun.push(job);
                }
            }
            Ok(true)
        })?;
        match (begun.as_slice(), named) {
            ([job], _) => Ok(*job),
            ([], Some(job)) => Ok(job),
            ([], None) => Err(InspectError::NoSuchJob(given.to_owned())),
            (_, _) => Err(InspectError::Ambiguous {
                given: given.to_owned(),
                jobs: begun,
            }),
        }
    }

    /// All entries of a job.
    ///
    /// # Errors
    ///
    /// If the log cannot be read.
    pub fn journal(&self, job: JobId) -> Result<Vec<Recorded>, InspectError> {
        let storage = Arc::clone(&self.storage);
        let journal = runtime::read_journal(&self.data_dir.wal(), storage, job)?;
        Ok(journal)
    }

    /// Runs a job's program against its journal.
    ///
    /// # Errors
    ///
    /// The first difference, or why the job cannot be replayed.
    pub fn replay(&self, job: JobId, steps_max: usize) -> Result<Replayed, InspectError> {
        let journal = self.journal(job)?;
        let programs = crate::boot::programs(steps_max);
        Ok(runtime::replay(&programs, &self.payloads()?, job, journal)?)
    }

    /// What a finished job gave, or why it failed, and where the log says so; `None` while it is not over.
    ///
    /// # Errors
    ///
    /// If the log or a blob cannot be read.
    pub fn result(&self, job: JobId) -> Result<Option<(Lsn, JobResult)>, InspectError> {
        let journal = self.journal(job)?;
        let Some(last) = journal.last() else {
            return Err(InspectError::NoSuchJob(job.to_string()));
        };
        let entry = last.entry().map_err(|source| InspectError::Decode {
            lsn: last.lsn,
            source,
        })?;
        let Entry::Finished { ending, .. } = entry else {
            return Ok(None);
        };
        let payloads = self.payloads()?;
        let result = JobResult::of(ending, &payloads)
            .map_err(|error| InspectError::Replay(ReplayError::Input(error)))?;
        Ok(Some((last.lsn, result)))
    }

    fn payloads(&self) -> Result<Arc<Payloads>, InspectError> {
        let blobs = BlobStore::open(self.data_dir.blobs(), Arc::clone(&self.storage))?;
        // Nothing is stored here, so what would be stored as a blob does not matter.
        Ok(Arc::new(Payloads::new(Arc::new(blobs), usize::MAX)))
    }
}

/// A record as a line of `log cat` shows it: `{"lsn", "job", "type", …}`. Payloads that stand in the record are shown
/// as what they are, blobs by their hash.
fn record_to_json(lsn: Lsn, record: &Record) -> Value {
    let (job, entry) = match record {
        Record::Node(entry) => (None, serde_json::to_value(entry)),
        Record::Job(job, entry) => (Some(job.to_string()), serde_json::to_value(entry)),
    };
    let entry = entry.unwrap_or_else(|error| Value::String(error.to_string()));
    let mut line = Map::new();
    line.insert("lsn".to_owned(), lsn.0.into());
    if let Some(job) = job {
        line.insert("job".to_owned(), job.into());
    }
    match entry {
        Value::Object(variant) => {
            for (name, fields) in variant {
                line.insert("type".to_owned(), snake_case(&name).into());
                if let Value::Object(fields) = fields {
                    line.extend(readable_fields(fields));
                }
            }
        }
        other => {
            line.insert("type".to_owned(), other);
        }
    }
    Value::Object(line)
}

/// Hashes as hexadecimal, stored payloads as what they hold, enums as `{"type": …}`.
fn readable(value: Value) -> Value {
    match value {
        Value::Array(items) => match hash(&items) {
            Some(hash) => Value::String(hash),
            None => Value::Array(items.into_iter().map(readable).collect()),
        },
        Value::Object(fields) => {
            if let [(variant, inner)] = fields.iter().collect::<Vec<_>>().as_slice() {
                match (variant.as_str(), inner) {
                    ("Inline", Value::String(text)) => {
                        return serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into());
                    }
                    ("Blob", Value::Object(_)) => {
                        return json!({ "blob": readable((*inner).clone()) });
                    }
                    (name, Value::Object(_)) if name.starts_with(char::is_uppercase) => {
                        let Value::Object(mut inner) = readable((*inner).clone()) else {
                            return Value::Null;
                        };
                        inner.insert("type".to_owned(), snake_case(name).into());
                        return Value::Object(inner);
                    }
                    _ => {}
                }
            }
            Value::Object(readable_fields(fields))
        }
        other => other,
    }
}

fn readable_fields(fields: Map<String, Value>) -> Map<String, Value> {
    let readable_field = |(name, value): (String, Value)| match value {
        // The one outcome without fields. The others are objects, so it is one too, for whoever reads them alike.
        Value::String(variant) if name == "outcome" && variant.starts_with(char::is_uppercase) => {
            (name, json!({ "type": snake_case(&variant) }))
        }
        value => (name, readable(value)),
    };
    fields.into_iter().map(readable_field).collect()
}

fn hash(items: &[Value]) -> Option<String> {
    if items.len() != 32 {
        return None;
    }
    items
        .iter()
        .map(|item| item.as_u64().and_then(|byte| u8::try_from(byte).ok()))
        .map(|byte| byte.map(|byte| format!("{byte:02x}")))
        .collect()
}

fn snake_case(name: &str) -> String {
    name.chars()
        .enumerate()
        .fold(String::new(), |mut text, (index, letter)| {
            if letter.is_uppercase() && index > 0 {
                text.push('_');
            }
            text.extend(letter.to_lowercase());
            text
        })
}
