//! Payloads: what entries carry that may be small or large.
//!
//! A payload up to the threshold stands in the entry itself. A larger one is a blob: a file named by its hash, on
//! disk before the entry that names it is written, so that the log stays small however large the work is.
//!
//! Blobs are named by their content, so one that is about to be removed, because the last entry that named it is gone, may
//! be stored again at that very moment by somebody else. A [`Pin`] keeps it there from before it is stored until an entry
//! names it.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use serde::{Deserialize, Serialize};
use wal::{BlobError, BlobId, BlobStore};

use crate::json::Json;
use crate::sync::{Mutex, MutexGuard};

/// A payload as an entry holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stored {
    /// The text itself.
    Inline(String),
    /// The hash and length, in bytes, of the text's blob.
    Blob {
        /// SHA-256 of the text.
        id: [u8; 32],
        /// Length of the text in bytes.
        len: u64,
    },
}

impl Stored {
    /// Turns a text into its hash, as if it were a blob: the form in which two payloads are compared.
    pub(crate) fn hash(&mut self) {
        if let Self::Inline(text) = self {
            *self = Self::Blob {
                id: BlobId::of(text.as_bytes()).0,
                len: text.len() as u64,
            };
        }
    }

    /// The blob this names, if it names one.
    #[must_use]
    pub fn blob(&self) -> Option<BlobId> {
        match self {
            Self::Inline(_) => None,
            Self::Blob { id, .. } => Some(BlobId(*id)),
        }
    }
}

/// A payload at hand: its text, and how entries name it.
#[derive(Clone, Debug)]
pub struct Payload {
    json: Json,
    blob: Option<BlobId>,
    /// Blobs beside the text that the text speaks of, kept as long as the entry is.
    attachments: Vec<BlobId>,
    /// Keeps what was stored for it, until an entry does.
    pins: Vec<Pin>,
}

/// Keeps a blob from being removed for as long as it, or a clone of it, is held.
#[derive(Clone, Debug)]
pub struct Pin(Arc<Pinned>);

#[derive(Debug)]
struct Pinned {
    id: BlobId,
    pins: Pins,
}

/// How many pins there are, by blob.
type Pins = Arc<Mutex<BTreeMap<BlobId, usize>>>;

fn lock(pins: &Pins) -> MutexGuard<'_, BTreeMap<BlobId, usize>> {
    // Whoever panicked held the lock to count, or to remove a file: the counts are right.
    pins.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pin {
    fn new(pins: &Pins, id: BlobId) -> Self {
        *lock(pins).entry(id).or_default() += 1;
        let pins = Arc::clone(pins);
        Self(Arc::new(Pinned { id, pins }))
    }

    /// The blob.
    #[must_use]
    pub fn blob(&self) -> BlobId {
        self.0.id
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut pins = lock(&self.pins);
        if let Some(count) = pins.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.id);
            }
        }
    }
}

impl Payload {
    /// A payload that stands in its entry, whatever its size: for what is known to be small.
    #[must_use]
    pub fn inline(json: Json) -> Self {
        Self {
            json,
            blob: None,
            attachments: Vec::new(),
            pins: Vec::new(),
        }
    }

    /// The text.
    #[must_use]
    pub fn json(&self) -> &Json {
        &self.json
    }

    /// The form in which an entry holds it.
    #[must_use]
    pub fn stored(&self) -> Stored {
        match self.blob {
            None => Stored::Inline(self.json.as_str().to_owned()),
            Some(id) => Stored::Blob {
                id: id.0,
                len: self.json.len() as u64,
            },
        }
    }

    /// The blobs beside the text.
    #[must_use]
    pub fn attachments(&self) -> &[BlobId] {
        &self.attachments
    }

    /// Adds blobs that the text speaks of.
    #[must_use]
    pub fn with_attachments(mut self, attachments: Vec<Pin>) -> Self {
        self.attachments.extend(attachments.iter().map(Pin::blob));
        self.pins.extend(attachments);
        self
    }
}

/// Why a payload could not be stored or read back.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// The blob store refused.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The bytes are whole, but are not the JSON they should be.
    #[error("{what} holds no JSON: {error}")]
    NotJson {
        /// Which payload.
        what: String,
        /// What is wrong with it.
        error: String,
    },
}

/// Where payloads are stored: inline up to a threshold, in the blob store above it.
#[derive(Debug)]
pub struct Payloads {
    blobs: Arc<BlobStore>,
    threshold_bytes: usize,
    pins: Pins,
}

impl Payloads {
    /// Payloads longer than `threshold_bytes` go to `blobs`.
    #[must_use]
    pub fn new(blobs: Arc<BlobStore>, threshold_bytes: usize) -> Self {
        Self {
            blobs,
            threshold_bytes,
            pins: Pins::default(),
        }
    }

    /// The store of the large ones.
    #[must_use]
    pub fn blobs(&self) -> &Arc<BlobStore> {
        &self.blobs
    }

    /// Whether a text of this length stands in its entry.
    #[must_use]
    pub fn is_inline(&self, len_bytes: usize) -> bool {
        len_bytes <= self.threshold_bytes
    }

    /// The same payload without touching the disk: a large text is named by its hash and handed back to be written
    /// with the entry that names it. For the scheduler's thread, which never waits for the disk.
    #[must_use]
    pub fn plan(&self, json: Json) -> (Payload, Option<(BlobId, Vec<u8>)>) {
        if self.is_inline(json.len()) {
            return (Payload::inline(json), None);
        }
        let id = BlobId::of(json.as_str().as_bytes());
        let bytes = json.as_str().as_bytes().to_vec();
        let payload = Payload {
            json,
            blob: Some(id),
            attachments: Vec::new(),
            pins: Vec::new(),
        };
        (payload, Some((id, bytes)))
    }

    /// Stores a text, writing its blob if it is large. A blob that could not be written is handed back, to go the
    /// way of [`plan`](Self::plan): the log's writer meets the same disk, and it is the one that may stall or stop.
    #[must_use]
    pub fn store(&self, json: Json) -> (Payload, Option<(BlobId, Vec<u8>)>) {
        if !self.is_inline(json.len())
            && let Ok(pin) = self.put(json.as_str().as_bytes())
        {
            let payload = Payload {
                json,
                blob: Some(pin.blob()),
                attachments: Vec::new(),
                pins: vec![pin],
            };
            return (payload, None);
        }
        self.plan(json)
    }

    /// Stores bytes as a blob. It is on disk when this returns, and stays there while the pin is held.
    ///
    /// # Errors
    ///
    /// What the blob store says.
    pub fn put(&self, bytes: &[u8]) -> Result<Pin, BlobError> {
        // Pinned first: whoever removes it at this moment has done so before it is looked for.
        let pin = Pin::new(&self.pins, BlobId::of(bytes));
        self.blobs.put_all([(pin.blob(), bytes)])?;
        Ok(pin)
    }

    /// Removes a blob that no entry names, unless it is pinned: then an entry is about to.
    ///
    /// # Errors
    ///
    /// What the blob store says.
    pub fn discard(&self, id: BlobId) -> Result<(), BlobError> {
        let pins = lock(&self.pins);
        if !pins.contains_key(&id) {
            self.blobs.remove(id)?;
        }
        Ok(())
    }

    /// Reads a payload back, checking it against its hash.
    ///
    /// # Errors
    ///
    /// If the blob is missing, damaged or unreadable.
    pub fn load(&self, stored: &Stored) -> Result<Payload, PayloadError> {
        match stored {
            Stored::Inline(text) => {
                let json = Json::parse_text(text).map_err(|error| PayloadError::NotJson {
                    what: "inline payload".to_owned(),
                    error: error.to_string(),
                })?;
                Ok(Payload::inline(json))
            }
            Stored::Blob { id, .. } => {
                let id = BlobId(*id);
                let bytes = self.blobs.get(id)?;
                let json = std::str::from_utf8(&bytes)
                    .map_err(|error| error.to_string())
                    .and_then(|text| Json::parse_text(text).map_err(|error| error.to_string()))
                    .map_err(|error| PayloadError::NotJson {
                        what: format!("blob {id}"),
                        error,
                    })?;
                Ok(Payload {
                    json,
                    blob: Some(id),
                    attachments: Vec::new(),
                    pins: Vec::new(),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use wal::sim::MemStorage;

    use super::*;

    #[test]
    fn a_blob_stays_while_somebody_is_about_to_name_it() {
        let blobs = Arc::new(BlobStore::open("/", Arc::new(MemStorage::new(1))).unwrap());
        let payloads = Payloads::new(Arc::clone(&blobs), 4);
        let (payload, unwritten) = payloads.store(Json::of("large enough"));
        assert!(unwritten.is_none());
        let id = payload.stored().blob().unwrap();
        let again = payload.clone();
        drop(payload);
        payloads.discard(id).unwrap();
        assert!(blobs.get(id).is_ok(), "the clone keeps it");
        drop(again);
        payloads.discard(id).unwrap();
        assert!(blobs.get(id).is_err());
        let pin = payloads.put(b"beside").unwrap();
        let payload = Payload::inline(Json::null()).with_attachments(vec![pin.clone()]);
        drop(pin);
        payloads.discard(payload.attachments()[0]).unwrap();
        assert!(blobs.get(payload.attachments()[0]).is_ok());
    }
}
