//! What jobs hand out: listed, and put together from their parts.

use pal::{EventKind, Part};
use runtime::{History, JobId};
use wal::{BlobId, Lsn};

use crate::fault::{Fault, FaultCode};
use crate::service::{Service, blocking};
use crate::wire::{ArtifactInfo, ArtifactList};

/// An artifact with all its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// What it is.
    pub info: ArtifactInfo,
    /// Its bytes; for one that is kept elsewhere, where.
    pub bytes: Vec<u8>,
}

struct Gathered {
    info: ArtifactInfo,
    parts: Vec<Part>,
}

impl Gathered {
    fn new(name: String) -> Self {
        Self {
            info: ArtifactInfo {
                name,
                media_type: String::new(),
                parts: 0,
                size_bytes: 0,
                url: None,
                complete: false,
            },
            parts: Vec::new(),
        }
    }
}

impl Service {
    /// The artifacts that a job has handed out so far.
    ///
    /// # Errors
    ///
    /// If there is no such job, or the log cannot be read.
    pub async fn artifacts(&self, word: &str) -> Result<ArtifactList, Fault> {
        let gathered = self.gather(word).await?;
        Ok(ArtifactList {
            artifacts: gathered.into_iter().map(|found| found.info).collect(),
        })
    }

    /// One artifact of a job.
    ///
    /// # Errors
    ///
    /// If there is no such job or artifact, or a blob cannot be read.
    pub async fn artifact(&self, word: &str, name: &str) -> Result<Artifact, Fault> {
        let gathered = self.gather(word).await?;
        let found = gathered.into_iter().find(|found| found.info.name == name);
        let found = found.ok_or_else(|| {
            Fault::new(
                FaultCode::NotFound,
                format!("job `{word}` has no artifact `{name}`"),
            )
        })?;
        let history = self.history().clone();
        blocking(move || {
            let mut bytes = Vec::new();
            for part in &found.parts {
                match part {
                    Part::Text { text } => bytes.extend_from_slice(text.as_bytes()),
                    Part::Data { data } => bytes.extend_from_slice(data.to_string().as_bytes()),
                    Part::Url { url } => bytes.extend_from_slice(url.as_bytes()),
                    Part::File { blob, .. } => bytes.extend(read_blob(&history, blob)?),
                    Part::Omitted { bytes } => {
                        return Err(Fault::new(
                            FaultCode::TooLarge,
                            format!("a part of {bytes} bytes is too large to be handed out"),
                        ));
                    }
                }
            }
            Ok(Artifact {
                info: found.info,
                bytes,
            })
        })
        .await
    }

    async fn gather(&self, word: &str) -> Result<Vec<Gathered>, Fault> {
        let job = self.find(word).await?;
        let Some(first) = job.first_lsn else {
            return Ok(Vec::new());
        };
        let through = self.shown(&job).await?;
        let (history, id) = (self.history().clone(), job.id);
        blocking(move || gather(&history, id, first, through)).await
    }
}

fn gather(
    history: &History,
    job: JobId,
    first: Lsn,
    through: Lsn,
) -> Result<Vec<Gathered>, Fault> {
    let mut gathered: Vec<Gathered> = Vec::new();
    for event in history.emitted(job, first, through)? {
        let EventKind::Artifact {
            name,
            media_type,
            part,
            last,
            append,
            ..
        } = event
        else {
            continue;
        };
        let known = gathered.iter().position(|found| found.info.name == name);
        let at = known.unwrap_or_else(|| {
            gathered.push(Gathered::new(name));
            gathered.len() - 1
        });
        let Gathered { info, parts } = &mut gathered[at];
        if !append {
            parts.clear();
            (info.size_bytes, info.url) = (0, None);
        }
        info.media_type = media_type;
        info.complete = last;
        match &part {
            Part::Text { text } => info.size_bytes += text.len() as u64,
            Part::Data { data } => info.size_bytes += data.to_string().len() as u64,
            Part::File { size, .. } => info.size_bytes += size,
            Part::Omitted { bytes } => info.size_bytes += bytes,
            Part::Url { url } => info.url = Some(url.clone()),
        }
        parts.push(part);
        info.parts = parts.len();
    }
    Ok(gathered)
}

fn read_blob(history: &History, name: &str) -> Result<Vec<u8>, Fault> {
    let failed = |what: String| Fault::new(FaultCode::Internal, what);
    let id: BlobId = name
        .parse()
        .map_err(|_| failed(format!("`{name}` is no blob's name")))?;
    let blobs = history.payloads().blobs();
    blobs
        .get(id)
        .map_err(|error| failed(format!("cannot read blob {name}: {error}")))
}
