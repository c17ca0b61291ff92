//! Micro-commits on a branch of the user's repository, and their squash onto another.
//!
//! Only here does anything of ours come into the user's object store: the objects that a commit needs and that are not there
//! yet, then, once those are on disk, the branch, by git's own way of moving one (a lock, and the old value compared). So a
//! crash leaves either nothing that anybody sees or the whole commit; and a commit that was made just before a crash is found
//! again by its trailers, and not made twice.

use std::fmt;
use std::fmt::Write as _;

use gix::ObjectId;
use gix::bstr::{BString, ByteSlice};
use gix::objs::tree::EntryKind;
use gix::refs::transaction::{Change, LogChange, PreviousValue, RefEdit};
use gix::refs::{FullName, Target};

use crate::canvas::{Canvas, TreeId, open_repository, sync_filesystem};
use crate::error::{Error, chain};
use crate::path::RepoPath;

/// The trailers that name the job and the step of a commit.
const JOB: &str = "Tinkerbell-Job";
const STEP: &str = "Tinkerbell-Step";

/// How far back a branch is looked through for a commit that was made before a crash.
const LOOKED_BACK_MAX: usize = 10_000;

/// The id of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommitId(ObjectId);

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Who made a commit, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The name.
    pub name: String,
    /// The address.
    pub email: String,
    /// When, in seconds since 1970 (UTC).
    pub seconds: i64,
}

/// A commit for one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MicroCommit {
    /// The branch, such as `tinkerbell/JOB`. It begins at the base commit.
    pub branch: String,
    /// The job, for the trailer.
    pub job: String,
    /// The step, for the trailer.
    pub step: String,
    /// What was done, in words.
    pub message: String,
    /// Who did it. It is the committer too, so that the same step gives the same commit.
    pub author: Signature,
    /// What the workspace held after the step.
    pub tree: TreeId,
}

/// All that a branch has on top of the base commit, as one commit onto another branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The branch that it goes onto. It is made at the base commit if it is not there.
    pub onto: String,
    /// What was done, in words.
    pub message: String,
    /// Who did it.
    pub author: Signature,
    /// What the workspace held in the end.
    pub tree: TreeId,
}

/// A path that both sides changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Which.
    pub path: String,
}

impl Canvas {
    /// Makes a commit for a step, or finds it, if it was made before. A branch that is checked out somewhere is moved all the
    /// same: nobody's work tree is touched.
    ///
    /// # Errors
    ///
    /// If it cannot be written, or somebody else moved the branch meanwhile.
    pub fn commit(&self, commit: &MicroCommit) -> Result<CommitId, Error> {
        let theirs = open_repository(&self.theirs)?;
        let name = branch_name(&commit.branch)?;
        let tip = tip_of(&theirs, &name)?;
        if let Some(tip) = tip
            && let Some(made) = self.find_made(&theirs, tip, commit)?
        {
            return Ok(CommitId(made));
        }
        let mut message = commit.message.trim().to_owned();
        let _ = write!(
            message,
            "\n\n{JOB}: {}\n{STEP}: {}\n",
            commit.job, commit.step
        );
        let id = self.write_commit(
            &theirs,
            commit.tree.0,
            tip.unwrap_or(self.base),
            &commit.author,
            message,
        )?;
        move_branch(&theirs, name, tip, id, &commit.message)?;
        Ok(CommitId(id))
    }

    /// Puts all that was done since the base commit onto a branch, as one commit. If the branch has moved on since, what it
    /// changed is merged; what both changed is told, and then nothing is done.
    ///
    /// # Errors
    ///
    /// If it cannot be written, or somebody moved the branch meanwhile.
    pub fn export(&self, export: &Export) -> Result<Result<CommitId, Vec<Conflict>>, Error> {
        let theirs = open_repository(&self.theirs)?;
        let name = branch_name(&export.onto)?;
        let tip = tip_of(&theirs, &name)?;
        let onto = tip.unwrap_or(self.base);
        let tree = match onto == self.base {
            true => export.tree.0,
            false => match self.merge(onto, export.tree.0)? {
                Ok(tree) => tree,
                Err(conflicts) => return Ok(Err(conflicts)),
            },
        };
        let message = format!("{}\n", export.message.trim());
        let id = self.write_commit(&theirs, tree, onto, &export.author, message)?;
        move_branch(&theirs, name, tip, id, &export.message)?;
        Ok(Ok(CommitId(id)))
    }

    /// The tree of a commit with what was done here on top of it.
    fn merge(
        &self,
        onto: ObjectId,
        tree: ObjectId,
    ) -> Result<Result<ObjectId, Vec<Conflict>>, Error> {
        let failed = "merge";
        let theirs = self.store.find_commit(onto).map_err(Error::git(failed))?;
        let theirs = theirs.tree_id().map_err(Error::git(failed))?;
        let options = self
            .store
            .tree_merge_options()
            .map_err(Error::git(failed))?;
        let labels = gix::merge::blob::builtin_driver::text::Labels {
            ancestor: Some("base".into()),
            current: Some("branch".into()),
            other: Some("job".into()),
        };
        let base = self.base_tree()?.0;
        let merged = self.store.merge_trees(base, theirs, tree, labels, options);
        let mut merged = merged.map_err(Error::git(failed))?;
        let how = gix::merge::tree::TreatAsUnresolved::git();
        if merged.has_unresolved_conflicts(how) {
            let mut conflicts: Vec<_> = merged
                .conflicts
                .iter()
                .filter(|conflict| conflict.is_unresolved(how))
                .map(|conflict| Conflict {
                    path: conflict.ours.location().to_string(),
                })
                .collect();
            conflicts.sort_by(|a, b| a.path.cmp(&b.path));
            conflicts.dedup();
            return Ok(Err(conflicts));
        }
        let tree = merged.tree.write().map_err(Error::git(failed))?.detach();
        Ok(Ok(tree))
    }

    /// Looks for the commit of a step among those that were made since the base.
    fn find_made(
        &self,
        theirs: &gix::Repository,
        tip: ObjectId,
        commit: &MicroCommit,
    ) -> Result<Option<ObjectId>, Error> {
        let failed = "read the branch";
        let mut next = Some(tip);
        for _ in 0..LOOKED_BACK_MAX {
            let Some(id) = next.filter(|id| *id != self.base) else {
                return Ok(None);
            };
            let made = theirs.find_commit(id).map_err(Error::git(failed))?;
            let message = made.message_raw().map_err(Error::git(failed))?;
            if trailer(message, JOB) == Some(commit.job.as_bytes())
                && trailer(message, STEP) == Some(commit.step.as_bytes())
            {
                return Ok(Some(id));
            }
            next = made.parent_ids().next().map(gix::Id::detach);
        }
        Ok(None)
    }

    /// Writes a commit, and all that it needs and that is not there yet, into the user's object store, durably.
    fn write_commit(
        &self,
        theirs: &gix::Repository,
        tree: ObjectId,
        parent: ObjectId,
        author: &Signature,
        message: String,
    ) -> Result<ObjectId, Error> {
        self.copy_tree(theirs, tree)?;
        let signature = gix::actor::Signature {
            name: author.name.as_str().into(),
            email: author.email.as_str().into(),
            time: gix::date::Time {
                seconds: author.seconds,
                offset: 0,
            },
        };
        let commit = gix::objs::Commit {
            tree,
            parents: [parent].into_iter().collect(),
            author: signature.clone(),
            committer: signature,
            encoding: None,
            message: message.into(),
            extra_headers: Vec::new(),
        };
        let id = theirs
            .write_object(&commit)
            .map_err(Error::git("write a commit"))?
            .detach();
        sync_filesystem(theirs.common_dir())?;
        Ok(id)
    }

    /// Copies a tree, what is below it first, so that whatever is there has all that it names.
    fn copy_tree(&self, theirs: &gix::Repository, tree: ObjectId) -> Result<(), Error> {
        if theirs.has_object(tree) {
            return Ok(());
        }
        let failed = "copy a tree";
        let object = self.store.find_tree(tree).map_err(Error::git(failed))?;
        for entry in object.iter() {
            let entry = entry.map_err(Error::git(failed))?;
            let id = entry.oid().to_owned();
            match entry.mode().kind() {
                EntryKind::Tree => self.copy_tree(theirs, id)?,
                EntryKind::Commit => {}
                EntryKind::Blob | EntryKind::BlobExecutable | EntryKind::Link => {
                    if !theirs.has_object(id) {
                        let blob = self.store.find_blob(id).map_err(Error::git(failed))?;
                        theirs.write_blob(&blob.data).map_err(Error::git(failed))?;
                    }
                }
            }
        }
        let tree = object.decode().map_err(Error::git(failed))?;
        theirs.write_object(tree).map_err(Error::git(failed))?;
        Ok(())
    }
}

/// The value of a trailer: the last line that begins with it.
fn trailer<'m>(message: &'m [u8], name: &str) -> Option<&'m [u8]> {
    message.as_bstr().lines().rev().find_map(|line| {
        let value = line.strip_prefix(name.as_bytes())?.strip_prefix(b":")?;
        Some(value.trim())
    })
}

fn branch_name(branch: &str) -> Result<FullName, Error> {
    let name = BString::from(format!("refs/heads/{branch}"));
    FullName::try_from(name).map_err(Error::git("name a branch"))
}

fn tip_of(theirs: &gix::Repository, name: &FullName) -> Result<Option<ObjectId>, Error> {
    let failed = "read the branch";
    let found = theirs.try_find_reference(name.as_ref());
    let Some(mut found) = found.map_err(Error::git(failed))? else {
        return Ok(None);
    };
    let id = found.peel_to_id().map_err(Error::git(failed))?;
    Ok(Some(id.detach()))
}

fn move_branch(
    theirs: &gix::Repository,
    name: FullName,
    from: Option<ObjectId>,
    to: ObjectId,
    message: &str,
) -> Result<(), Error> {
    let branch = name.shorten().to_string();
    let edit = RefEdit {
        change: Change::Update {
            log: LogChange {
                message: message.lines().next().unwrap_or_default().into(),
                ..LogChange::default()
            },
            expected: match from {
                Some(from) => PreviousValue::MustExistAndMatch(Target::Object(from)),
                None => PreviousValue::MustNotExist,
            },
            new: Target::Object(to),
        },
        name,
        deref: false,
    };
    // The log of a branch names somebody; without settings of the user's that is us.
    let committer = gix::actor::SignatureRef {
        name: "tinkerbell".into(),
        email: "tinkerbell@localhost".into(),
        time: "0 +0000",
    };
    let moved = theirs.edit_references_as([edit], Some(committer));
    moved.map_err(|error| Error::Moved {
        branch,
        why: chain(&error),
    })?;
    sync_filesystem(theirs.common_dir())
}

impl Conflict {
    /// The path, if it is one.
    #[must_use]
    pub fn repo_path(&self) -> Option<RepoPath> {
        RepoPath::new(&self.path).ok()
    }
}
