//! Where jobs work: one directory each, made when it is first needed.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use runtime::{EffectId, JobId};

use crate::error::Error;

/// The length of a job's id as text (RFC 9562 section 4).
const JOB_ID_LEN: usize = 36;

/// The directories below the daemon's data directory that hold workspaces and their snapshots.
#[derive(Clone, Debug)]
pub(crate) struct Workspaces {
    workspaces: PathBuf,
    snapshots: PathBuf,
}

impl Workspaces {
    pub(crate) fn new(data_dir: &Path) -> Self {
        // Commands see these paths from other directories. It fails only where there is no current directory.
        let data_dir = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
        Self {
            workspaces: data_dir.join("workspaces"),
            snapshots: data_dir.join("snapshots"),
        }
    }

    /// Where a job's workspace is, or will be.
    pub(crate) fn path(&self, job: JobId) -> PathBuf {
        self.workspaces.join(job.to_string())
    }

    /// A job's workspace, made if it is not there. Blocks.
    pub(crate) fn open(&self, job: JobId) -> Result<PathBuf, Error> {
        let path = self.path(job);
        fs::create_dir_all(&path).map_err(Error::io("create workspace", &path))?;
        Ok(path)
    }

    /// Where the snapshot taken before one try is kept. The try is part of the name: an interrupted second try is
    /// never given the tree from before the first.
    pub(crate) fn snapshot_path(&self, id: EffectId) -> PathBuf {
        let name = format!("{}-{}-{}.snapshot", id.job, id.step, id.attempt);
        self.snapshots.join(name)
    }

    /// Removes snapshots, and what is left of unfinished ones, of jobs that are over; how many. Blocks.
    pub(crate) fn sweep_snapshots(&self, is_live: impl Fn(JobId) -> bool) -> Result<usize, Error> {
        let listed = match fs::read_dir(&self.snapshots) {
            Ok(listed) => listed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(Error::io("list", &self.snapshots)(error)),
        };
        let mut removed = 0;
        for entry in listed {
            let path = entry.map_err(Error::io("list", &self.snapshots))?.path();
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            // What has no job's id in front is nothing we made.
            let job = name.get(..JOB_ID_LEN).and_then(|id| id.parse().ok());
            if job.is_some_and(|job| !is_live(job)) {
                fs::remove_file(&path).map_err(Error::io("remove", &path))?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// Joins a relative path to a base that it must not leave, by its own `..` or its own root.
pub(crate) fn join_inside(base: &Path, relative: &str) -> Result<PathBuf, Error> {
    let mut depth = 0usize;
    let mut parts: Vec<&OsStr> = Vec::new();
    for component in Path::new(relative).components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => {
                parts.truncate(depth);
                parts.push(part);
                depth += 1;
            }
            Component::ParentDir if depth > 0 => {
                depth -= 1;
                parts.truncate(depth);
            }
            _ => {
                let text = format!("path `{relative}` leads out of the job's workspace");
                return Err(Error::InvalidInput(text));
            }
        }
    }
    Ok(base.join(parts.iter().collect::<PathBuf>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_stay_inside() {
        let inside = |path| join_inside(Path::new("/w"), path).ok();
        assert_eq!(inside("a/./b"), Some(PathBuf::from("/w/a/b")));
        assert_eq!(inside("a/../b"), Some(PathBuf::from("/w/b")));
        assert_eq!(inside("."), Some(PathBuf::from("/w/")));
        assert_eq!(inside(".."), None);
        assert_eq!(inside("a/../../b"), None);
        assert_eq!(inside("/etc"), None);
    }
}
